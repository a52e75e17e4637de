//! Names the shared library for the dynamic linker. The header is not made here: see `make header`.

/// The number of the binary interface. It only grows by a change that breaks programs built before.
/// Keep `package.metadata.capi.library.version` in Cargo.toml in step.
const ABI_VERSION: u32 = 1;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=EVERGRANT_ABI_VERSION={ABI_VERSION}");

    let link_arg = |arg: &str| println!("cargo::rustc-cdylib-link-arg=-Wl,{arg}");
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => {
            // cargo-c passes the same soname, so either build gives the same library.
            link_arg(&format!("-soname,libevergrant.so.{ABI_VERSION}"));
            // Thread-locals and exit handlers of a Rust library must not be unmapped by dlclose().
            link_arg("-z,nodelete");
        }
        Ok("macos") => link_arg(&format!("-install_name,@rpath/libevergrant.{ABI_VERSION}.dylib")),
        _ => {}
    }
}
