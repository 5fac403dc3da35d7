//! `make bench`. Everything is in the library, which is empty where the benchmark cannot measure.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    bench::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("error: the benchmark measures by cgroups and /proc, which only Linux has");
    std::process::exit(1);
}
