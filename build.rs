//! Sets the size of the component's stack: a host keeps the memory of an instance for the next
//! request, and with Rust's default of 1 MiB, 400 requests at once fill a pod of 500Mi.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size={}", 64 << 10);
    }
}
