//! include/evergrant.h, made by cbindgen from src/capi, and include/evergrant.json, the same for machines.

use std::path::Path;

use evergrant::config::{Key, Kind};
use serde_json::{Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// In the order in which a reader of the header wants them.
const SOURCES: [&str; 8] = [
    "src/error.rs",
    "src/capi/library.rs",
    "src/capi/string.rs",
    "src/capi/error.rs",
    "src/capi/client.rs",
    "src/capi/session.rs",
    "src/capi/sign_in.rs",
    "src/capi/queue.rs",
];

pub fn header() -> String {
    let root = Path::new(ROOT);
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    config.after_includes = Some(format!(
        "
#define EVERGRANT_VERSION \"{}\"
#define EVERGRANT_VERSION_MAJOR {}
#define EVERGRANT_VERSION_MINOR {}
#define EVERGRANT_VERSION_PATCH {}
#define EVERGRANT_ABI_VERSION {}

/* Windows only: define EVERGRANT_STATIC where the static library is linked. */
#if defined(_WIN32) && !defined(EVERGRANT_STATIC)
#define EVERGRANT_API __declspec(dllimport)
#else
#define EVERGRANT_API
#endif",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
        env!("CARGO_PKG_VERSION_PATCH"),
        evergrant::capi::ABI_VERSION,
    ));
    let builder = SOURCES
        .iter()
        .fold(cbindgen::Builder::new().with_config(config), |builder, source| builder.with_src(root.join(source)));
    let mut text = Vec::new();
    builder.generate().expect("cbindgen").write(&mut text);
    let text = String::from_utf8(text).expect("UTF-8");
    // The name that cbindgen leaves out helps debuggers and C++, and its blank lines nobody.
    let text = text.replacen("typedef enum {", "typedef enum evergrant_status {", 1).replace("\n\n\n\n", "\n\n");
    // Some compilers read a header in the code page of the machine.
    assert!(text.is_ascii(), "the header has a character that is not ASCII");
    text
}

/// The header as JSON. Strict: a line that it does not understand is a panic, not a gap in the table.
pub fn table(header: &str) -> String {
    let (types, functions) = header.split_once("extern \"C\" {").expect("a C++ block");
    let statuses: Vec<Value> = between(types, "typedef enum evergrant_status {", "}")
        .split_terminator(",\n")
        .filter(|entry| !entry.trim().is_empty())
        .map(|entry| {
            let (doc, constant) = documented(entry);
            let (name, number) = constant.split_once(" = ").expect("a numbered status");
            let name = name.strip_prefix("EVERGRANT_STATUS_").expect("a status");
            json!({"name": name, "number": number.parse::<i32>().expect("a number"), "doc": doc})
        })
        .collect();
    let (functions, _) = functions.rsplit_once("#ifdef __cplusplus").expect("its end");
    let functions: Vec<Value> = functions
        .split_once("#endif // __cplusplus")
        .expect("functions")
        .1
        .split_terminator(");\n")
        .filter(|entry| !entry.trim().is_empty())
        .map(function)
        .collect();
    let table = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "abi_version": evergrant::capi::ABI_VERSION,
        "statuses": statuses,
        "functions": functions,
        "configuration": evergrant::config::KEYS.iter().map(key).collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&table).expect("JSON") + "\n"
}

fn key(key: &Key) -> Value {
    let Key { name, kind } = key;
    match kind {
        Kind::Text => json!({"name": name, "kind": "text"}),
        Kind::Secret => json!({"name": name, "kind": "secret"}),
        Kind::Flag => json!({"name": name, "kind": "flag"}),
        Kind::Number { min, max } => json!({"name": name, "kind": "number", "min": min, "max": max}),
        Kind::Choice(choices) => json!({"name": name, "kind": "choice", "choices": choices}),
        Kind::Texts => json!({"name": name, "kind": "texts"}),
        Kind::Secrets => json!({"name": name, "kind": "secrets"}),
        Kind::Parameters => json!({"name": name, "kind": "parameters"}),
    }
}

fn function(entry: &str) -> Value {
    let (doc, declaration) = documented(entry);
    let declaration = declaration.strip_prefix("EVERGRANT_API ").expect("EVERGRANT_API");
    let (head, parameters) = declaration.split_once('(').expect("a declaration");
    let (returns, name) = typed(head);
    let parameters: Vec<Value> = match parameters {
        "void" => Vec::new(),
        list => list
            .split(", ")
            .map(|parameter| {
                let (kind, name) = typed(parameter);
                json!({"name": name, "type": kind})
            })
            .collect(),
    };
    json!({"name": name, "returns": returns, "parameters": parameters, "doc": doc})
}

/// `const char *name` as (`const char *`, `name`).
fn typed(declaration: &str) -> (&str, &str) {
    let at = declaration.rfind([' ', '*']).expect("a type and a name") + 1;
    (declaration[..at].trim_end(), &declaration[at..])
}

/// A doc comment without its stars, and what it documents in one line.
fn documented(entry: &str) -> (String, String) {
    let doc = between(entry, "/**\n", "*/").lines().filter(|line| !line.trim().is_empty()).map(|line| {
        let line = line.trim_start().strip_prefix('*').expect("a line of a comment");
        line.strip_prefix(' ').unwrap_or(line)
    });
    let code = entry.split_once("*/").expect("a comment").1;
    (doc.collect::<Vec<_>>().join("\n").trim_end().to_owned(), code.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split_once(from).and_then(|(_, rest)| rest.split_once(to)).unwrap_or_else(|| panic!("{from} ... {to}")).0
}
