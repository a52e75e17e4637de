//! The C interface as built: header, table for machines, exported symbols.

mod header;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// With EVERGRANT_WRITE_HEADER set (`make header`) it writes them instead.
#[test]
fn the_committed_header_is_what_the_source_makes() {
    let header = header::header();
    for (name, text) in [("evergrant.json", header::table(&header)), ("evergrant.h", header)] {
        let path = Path::new(ROOT).join("include").join(name);
        if env::var_os("EVERGRANT_WRITE_HEADER").is_some() {
            fs::write(&path, text).expect("write");
        } else {
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == text, "include/{name} is out of date: run `make header`, and review the difference");
        }
    }
}

/// Every function takes and gives what the conventions at the top of the header say.
#[test]
fn functions_follow_the_conventions() {
    for function in table()["functions"].as_array().expect("functions") {
        let name = text(&function["name"]);
        let returns = text(&function["returns"]);
        let parameters: Vec<(&str, &str)> = function["parameters"]
            .as_array()
            .expect("parameters")
            .iter()
            .map(|parameter| (text(&parameter["type"]), text(&parameter["name"])))
            .collect();
        assert!(name.starts_with("evergrant_"), "{name}");
        assert_eq!(returns == "void", name.ends_with("_free"), "{name} returns {returns}");
        for (index, (kind, parameter)) in parameters.iter().enumerate() {
            let output = kind.ends_with("**") || ["int64_t *", "int32_t *"].contains(kind);
            assert_eq!(output, parameter.ends_with("_out"), "{name}: {kind} {parameter}");
            assert_eq!(kind.starts_with("evergrant_error **"), *parameter == "error_out", "{name}: {kind} {parameter}");
            assert!(*parameter != "error_out" || index + 1 == parameters.len(), "{name}: error_out comes last");
            assert!(
                output || !kind.ends_with('*') || kind.starts_with("const ") || name.ends_with("_free"),
                "{name}: {kind} {parameter} is not const"
            );
        }
        let fallible = returns == "evergrant_status" && name != "evergrant_error_status";
        let silent = ["evergrant_session_peek", "evergrant_client_close"].contains(&name);
        let has_error = parameters.iter().any(|(_, parameter)| *parameter == "error_out");
        assert_eq!(has_error, fallible && !silent, "{name}");
    }
}

#[test]
fn versions_agree() {
    let table = table();
    assert_eq!(table["version"], evergrant::VERSION);
    assert_eq!(table["abi_version"], evergrant::capi::ABI_VERSION);
    let manifest = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).expect("Cargo.toml");
    let (_, library) = manifest.split_once("[package.metadata.capi.library]").expect("cargo-c's section");
    assert!(
        library.contains(&format!("\nversion = \"{}.0.0\"", evergrant::capi::ABI_VERSION)),
        "package.metadata.capi.library.version does not follow ABI_VERSION in build.rs"
    );
    for (status, number) in table["statuses"].as_array().expect("statuses").iter().zip(0..) {
        assert_eq!(status["number"], number);
        assert_eq!(status["name"], evergrant::Status::ALL[number as usize].name());
    }
}

/// The shared library that cargo has built for this very test run.
#[cfg(target_os = "linux")]
#[test]
fn the_shared_library_exports_the_header_and_nothing_else() {
    let test = env::current_exe().expect("the test");
    exports_what_the_header_says(&test.with_file_name("libevergrant.so"));
}

/// `make test-c` runs it, after `make build`.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs `make build`"]
fn the_release_libraries_export_the_header_and_nothing_else() {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(ROOT).join("target"), PathBuf::from);
    exports_what_the_header_says(&target.join("release/libevergrant.so"));
    let archive = Path::new(ROOT).join("build/libevergrant.a");
    assert_eq!(symbols(&["--defined-only", "--extern-only"], &archive), functions(), "{}", archive.display());
}

#[test]
#[ignore = "runs cargo"]
fn a_second_check_rebuilds_nothing() {
    let check = || run(Command::new(env!("CARGO")).args(["check", "--message-format=json"]).current_dir(ROOT));
    check();
    let stale: Vec<String> = check()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("cargo's messages"))
        .filter(|message| message["fresh"] == false)
        .map(|message| message["package_id"].to_string())
        .collect();
    assert!(stale.is_empty(), "{stale:?}");
}

fn exports_what_the_header_says(library: &Path) {
    assert_eq!(symbols(&["--dynamic", "--defined-only"], library), functions(), "{}", library.display());
    let dynamic = run(Command::new("readelf").args(["--dynamic", "--wide"]).arg(library));
    let soname = format!("Library soname: [libevergrant.so.{}]", evergrant::capi::ABI_VERSION);
    assert!(dynamic.contains(&soname), "{}: no {soname}", library.display());
    assert!(dynamic.contains("NODELETE"), "{}: can be unloaded", library.display());
}

fn symbols(options: &[&str], library: &Path) -> BTreeSet<String> {
    let listing = run(Command::new("nm").args(options).args(["--format=posix", "--no-sort"]).arg(library));
    listing
        .lines()
        // An archive's members are announced by a line of their own, which ends in a colon.
        .filter(|line| !line.ends_with(':'))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn functions() -> BTreeSet<String> {
    table()["functions"].as_array().expect("functions").iter().map(|it| text(&it["name"]).to_owned()).collect()
}

fn table() -> Value {
    serde_json::from_str(include_str!("../../include/evergrant.json")).expect("include/evergrant.json")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}
