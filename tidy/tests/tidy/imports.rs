//! Who may import whom. The table is that of `docs/architecture.md`; an edge that is not in it fails.

use crate::report;
use crate::workspace::{Package, packages, root_manifest};

/// What one package may see.
struct Rule {
    name: &'static str,
    /// Packages of this workspace it may import.
    may_import: &'static [&'static str],
    /// Crates of others it must never import, not even in its tests.
    never: &'static [&'static str],
}

/// Whatever touches a socket, a file, a clock, a thread or a runtime.
const IO: &[&str] = &[
    "axum",
    "crossbeam",
    "glommio",
    "hyper",
    "libc",
    "mio",
    "nix",
    "openraft",
    "quinn",
    "quinn-proto",
    "quinn-udp",
    "rcgen",
    "redb",
    "rocksdb",
    "rustls",
    "rustls-webpki",
    "rustyline",
    "socket2",
    "tokio",
    "tracing-subscriber",
];

const TABLE: &[Rule] = &[
    Rule { name: "pegasus-wire", may_import: &[], never: &["rand"] },
    Rule { name: "pegasus-replication", may_import: &["pegasus-wire"], never: &["rand", "tracing"] },
    Rule { name: "pegasus-history", may_import: &["pegasus-wire"], never: &["rand", "tracing"] },
    Rule {
        name: "pegasus-sim",
        may_import: &["pegasus-wire", "pegasus-replication", "pegasus-meta", "pegasus-history"],
        never: &["tempfile"],
    },
    Rule { name: "pegasus-gateway", may_import: &["pegasus-wire"], never: &["rand"] },
    Rule {
        name: "pegasus-stand-in",
        may_import: &["pegasus-wire", "pegasus-gateway"],
        never: &["axum", "glommio", "openraft", "quinn", "redb", "rocksdb"],
    },
    Rule {
        name: "pegasus-driver",
        may_import: &["pegasus-wire", "pegasus-gateway", "pegasus-stand-in"],
        never: &["axum", "clap", "glommio", "openraft", "quinn", "redb", "rocksdb"],
    },
    Rule {
        name: "pegasus-engine",
        may_import: &["pegasus-wire"],
        never: &["axum", "openraft", "quinn", "quinn-udp", "redb", "rustls", "tokio"],
    },
    Rule {
        name: "pegasus-rpc",
        may_import: &["pegasus-wire"],
        never: &["axum", "openraft", "redb", "rocksdb", "serde_json"],
    },
    Rule {
        name: "pegasus-meta",
        may_import: &["pegasus-wire", "pegasus-rpc", "pegasus-gateway"],
        never: &["glommio", "rocksdb"],
    },
    Rule {
        name: "pegasus-server",
        may_import: &["pegasus-wire", "pegasus-rpc", "pegasus-engine", "pegasus-replication", "pegasus-gateway"],
        never: &["openraft", "redb"],
    },
    Rule {
        name: "pegasus-client",
        may_import: &["pegasus-wire", "pegasus-rpc"],
        never: &["axum", "clap", "glommio", "openraft", "redb", "rocksdb"],
    },
    Rule {
        name: "pegasus-shell",
        may_import: &["pegasus-wire", "pegasus-client", "pegasus-driver", "pegasus-stand-in"],
        never: &["axum", "glommio", "openraft", "quinn", "redb", "rocksdb"],
    },
    Rule {
        name: "pegasus-perf",
        may_import: &[
            "pegasus-wire",
            "pegasus-client",
            "pegasus-rpc",
            "pegasus-engine",
            "pegasus-gateway",
            "pegasus-driver",
            "pegasus-stand-in",
            "pegasus-history",
        ],
        never: &["axum", "openraft", "redb"],
    },
    Rule { name: "pegasus-tidy", may_import: &["pegasus-wire"], never: &["rand"] },
];

/// Packages without IO. [`IO`] is forbidden to them on top of their own list.
const PURE: &[&str] =
    &["pegasus-wire", "pegasus-replication", "pegasus-history", "pegasus-sim", "pegasus-gateway", "pegasus-tidy"];

/// Edges that may only ask for certain features, since a feature brings a runtime with it.
const EDGE_FEATURES: &[(&str, &str, &[&str])] = &[
    ("pegasus-client", "pegasus-rpc", &["tokio"]),
    ("pegasus-meta", "pegasus-rpc", &["tokio"]),
    ("pegasus-sim", "pegasus-meta", &[]),
];

/// One entry of a dependency section.
struct Dependency {
    section: &'static str,
    name: String,
    optional: bool,
    features: Vec<String>,
}

#[test]
fn every_package_is_in_the_table() {
    let missing: Vec<String> = packages()
        .into_iter()
        .filter(|package| !TABLE.iter().any(|rule| rule.name == package.name))
        .map(|package| format!("{} ({})", package.name, package.folder))
        .collect();
    report("a new package needs a dependency rule; add it to docs/architecture.md and to this table:", &missing);
}

#[test]
fn edges_between_our_packages_are_those_of_the_table() {
    let mut breaches = Vec::new();
    for (package, rule) in ruled() {
        for dependency in dependencies(&package) {
            let ours = dependency.name.starts_with("pegasus-");
            if ours && !rule.may_import.contains(&dependency.name.as_str()) {
                breaches.push(format!("{} {} {}", package.name, dependency.section, dependency.name));
            }
        }
    }
    report(
        "edges not in the table of docs/architecture.md; move the code to where it may see what it needs:",
        &breaches,
    );
}

#[test]
fn no_package_imports_a_crate_it_must_never_see() {
    let mut breaches = Vec::new();
    for (package, rule) in ruled() {
        let pure = PURE.contains(&rule.name);
        for dependency in dependencies(&package) {
            let name = dependency.name.as_str();
            if rule.never.contains(&name) || (pure && IO.contains(&name)) {
                breaches.push(format!("{} {} {name}", package.name, dependency.section));
            }
        }
    }
    report("these crates are forbidden here (also for tests); put what needs them into a host package:", &breaches);
}

#[test]
fn the_core_of_meta_is_built_without_io() {
    let meta = crate::workspace::package("pegasus-meta");
    let host = &meta.manifest["features"]["host"];
    let enabled: Vec<&str> = host.as_array().unwrap().iter().filter_map(|feature| feature.as_str()).collect();
    let mut breaches = Vec::new();
    for dependency in dependencies(&meta).iter().filter(|dependency| dependency.section == "dependencies") {
        let does_io = IO.contains(&dependency.name.as_str()) || dependency.name == "pegasus-rpc";
        let behind_host = dependency.optional && enabled.contains(&format!("dep:{}", dependency.name).as_str());
        if does_io && !behind_host {
            breaches.push(dependency.name.clone());
        }
    }
    report("dependencies of meta that do IO are optional and listed as dep:<name> in its feature `host`:", &breaches);
}

#[test]
fn the_runtimes_of_rpc_are_behind_features() {
    let rpc = crate::workspace::package("pegasus-rpc");
    let mut breaches = Vec::new();
    for dependency in dependencies(&rpc).iter().filter(|dependency| dependency.section == "dependencies") {
        if ["glommio", "tokio"].contains(&dependency.name.as_str()) && !dependency.optional {
            breaches.push(dependency.name.clone());
        }
    }
    let default = &rpc.manifest["features"]["default"];
    if !default.as_array().unwrap().is_empty() {
        breaches.push(format!("default = {default}"));
    }
    report("a runtime of rpc is optional and no default feature turns it on:", &breaches);
}

#[test]
fn edges_ask_only_for_the_features_they_may() {
    let mut breaches = Vec::new();
    for (from, to, allowed) in EDGE_FEATURES {
        for dependency in dependencies(&crate::workspace::package(from)) {
            for feature in dependency.features.iter().filter(|_| dependency.name == *to) {
                if !allowed.contains(&feature.as_str()) {
                    breaches.push(format!("{from} asks for feature {feature:?} of {to}; allowed: {allowed:?}"));
                }
            }
        }
    }
    let workspace = root_manifest();
    for name in ["pegasus-rpc", "pegasus-meta"] {
        let entry = &workspace["workspace"]["dependencies"][name];
        if entry.get("default-features").and_then(toml::Value::as_bool) != Some(false) {
            breaches.push(format!("{name} in the root Cargo.toml lacks default-features = false"));
        }
    }
    report("features bring runtimes along; ask for less:", &breaches);
}

#[test]
fn no_product_can_have_a_bug_planted() {
    let mut breaches = Vec::new();
    for package in packages() {
        for dependency in dependencies(&package).iter().filter(|dependency| dependency.section != "dev-dependencies") {
            if dependency.features.iter().any(|feature| feature == "planted-bugs") {
                breaches.push(format!("{} {} {}", package.name, dependency.section, dependency.name));
            }
        }
    }
    report("the feature planted-bugs is for [dev-dependencies] only:", &breaches);
}

#[test]
fn no_product_has_the_stand_in() {
    let mut breaches = Vec::new();
    for package in packages() {
        for dependency in dependencies(&package).iter().filter(|dependency| dependency.section != "dev-dependencies") {
            if dependency.name == "pegasus-stand-in" {
                breaches.push(format!("{} {}", package.name, dependency.section));
            }
        }
    }
    report("pegasus-stand-in is for [dev-dependencies] only:", &breaches);
}

#[test]
fn packages_inherit_what_the_workspace_decides() {
    let mut breaches = Vec::new();
    for package in packages() {
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            let inherited = package.manifest["package"].get(key).and_then(|value| value.get("workspace"));
            if inherited.and_then(toml::Value::as_bool) != Some(true) {
                breaches.push(format!("{}: {key}.workspace = true", package.folder));
            }
        }
        let lints = package.manifest.get("lints").and_then(|lints| lints.get("workspace"));
        if lints.and_then(toml::Value::as_bool) != Some(true) {
            breaches.push(format!("{}: [lints] workspace = true", package.folder));
        }
        for (section, name, value) in sections(&package) {
            if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                breaches.push(format!("{}: {name}.workspace = true in [{section}]", package.folder));
            }
        }
    }
    report("versions, lints and dependencies are stated once, in the root Cargo.toml; write:", &breaches);
}

/// Packages with their rules. One without a rule fails in a test of its own.
fn ruled() -> Vec<(Package, &'static Rule)> {
    let rule_of = |package: Package| {
        let rule = TABLE.iter().find(|rule| rule.name == package.name)?;
        Some((package, rule))
    };
    packages().into_iter().filter_map(rule_of).collect()
}

fn dependencies(package: &Package) -> Vec<Dependency> {
    let read = |(section, name, value): (&'static str, String, toml::Value)| {
        let list = value.get("features").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        Dependency {
            section,
            name: value.get("package").and_then(toml::Value::as_str).unwrap_or(&name).to_owned(),
            optional: value.get("optional").and_then(toml::Value::as_bool).unwrap_or(false),
            features: list.iter().filter_map(|feature| feature.as_str().map(str::to_owned)).collect(),
        }
    };
    sections(package).into_iter().map(read).collect()
}

/// Every dependency entry, those under `[target.'..']` as well.
fn sections(package: &Package) -> Vec<(&'static str, String, toml::Value)> {
    let mut tables = vec![&package.manifest];
    if let Some(targets) = package.manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let mut found = Vec::new();
    for table in tables {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(entries) = table.get(section).and_then(toml::Value::as_table) else { continue };
            found.extend(entries.iter().map(|(name, value)| (section, name.clone(), value.clone())));
        }
    }
    found
}
