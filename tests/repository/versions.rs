//! scripts/versions.env is the one place of the versions: what installs something, or tells how, has those.

use super::{documents::all_documents, makefile, programs::Programs, read, read_all};

/// The names and values of versions.env.
pub fn versions() -> Vec<(String, String)> {
    let text = read("scripts/versions.env");
    let versions: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once('=').expect("NAME=value"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(!versions.is_empty());
    versions
}

fn version(name: &str) -> String {
    let found = versions().into_iter().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("no {name}")).1
}

#[test]
fn a_version_stands_in_one_place_alone() {
    let mut texts = read_all("scripts", ".sh");
    texts.push(("Makefile".to_owned(), makefile::text()));
    for (name, text) in texts {
        for (variable, version) in versions() {
            assert!(
                !text.contains(&version),
                "{name} has {version}: take {variable}"
            );
        }
    }
}

#[test]
fn a_version_says_where_a_newer_one_is_found() {
    let text = read("scripts/versions.env");
    let lines: Vec<_> = text.lines().collect();
    for pair in lines
        .windows(2)
        .filter(|pair| pair[1].contains('=') && !pair[1].starts_with('#'))
    {
        assert!(
            pair[0].starts_with("# renovate: datasource="),
            "{}",
            pair[1]
        );
    }
}

#[test]
fn the_documents_install_what_make_cluster_installs() {
    let run = Programs::new("cluster").make(&["cluster"]);
    assert!(run.success, "{run}");
    let documents = all_documents();
    for (chart, version) in [
        (
            "oci://quay.io/jetstack/charts/cert-manager",
            version("CERT_MANAGER_VERSION"),
        ),
        (
            "oci://ghcr.io/spinframework/charts/spin-operator",
            version("SPIN_OPERATOR_VERSION"),
        ),
        (
            "--repo https://kedacore.github.io/charts",
            version("KEDA_VERSION"),
        ),
    ] {
        let call = run.call(chart).join(" ");
        assert!(call.contains(&format!("--version {version}")), "{call}");
        let command = format!("{chart} --version {version}");
        assert!(documents.contains(&command), "the documents lack {command}");
    }
    let image = format!(
        "ghcr.io/spinframework/containerd-shim-spin/k3d:{}",
        version("K3D_SHIM_VERSION")
    );
    for part in [image.as_str(), "8081:80@loadbalancer"] {
        run.position(part);
        assert!(documents.contains(part), "the documents lack {part}");
    }
    for asset in ["runtime-class", "crds", "shim-executor"] {
        let url = format!(
            "https://github.com/spinframework/spin-operator/releases/download/v{}/spin-operator.{asset}.yaml",
            version("SPIN_OPERATOR_VERSION")
        );
        run.position(&url);
        assert!(documents.contains(&url), "the documents lack {url}");
    }
}
