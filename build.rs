//! The stack of the component, in bytes: a host keeps the memory of an instance resident for the next
//! request, and with Rust's default, 1 MiB, 400 requests at once fill a pod of 500Mi.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size={}", 64 << 10);
    }
}
