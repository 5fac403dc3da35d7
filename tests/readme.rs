//! The README stays short enough to be read to its end.

/// Words as `wc -w` counts them: what stands between white space, tables and commands included.
const MOST_WORDS: usize = 1200;

#[test]
fn the_readme_is_short() {
    let words = include_str!("../README.md").split_whitespace().count();
    assert!(
        words <= MOST_WORDS,
        "README.md has {words} words, more than {MOST_WORDS}: what is not needed to start belongs in docs/"
    );
}
