//! What the repository consists of: its packages and its files.

use std::path::{Path, PathBuf};

/// A package of the workspace, as its Cargo.toml states it.
pub(crate) struct Package {
    /// Folder relative to the root, for example `rpc/wire`.
    pub(crate) folder: String,
    /// Name, for example `pegasus-wire`.
    pub(crate) name: String,
    /// The whole Cargo.toml.
    pub(crate) manifest: toml::Table,
}

/// A text file of the repository.
pub(crate) struct File {
    /// Path relative to the root, with `/`.
    pub(crate) path: String,
    /// Its contents.
    pub(crate) text: String,
}

impl File {
    /// True for Rust that is built into a library or a binary. Test modules of their own end in `tests.rs`.
    pub(crate) fn is_product(&self) -> bool {
        let outside = ["tests", "benches", "examples"];
        let is_test = self.path.ends_with("_tests.rs") || self.path.ends_with("/tests.rs");
        self.is_rust() && !is_test && !self.path.split('/').any(|part| outside.contains(&part))
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(crate) fn is_script(&self) -> bool {
        [".sh", ".awk"].iter().any(|ending| self.path.ends_with(ending)) || self.path == ".ci/run"
    }

    pub(crate) fn is_document(&self) -> bool {
        self.path.ends_with(".md")
    }

    pub(crate) fn is_manifest(&self) -> bool {
        self.path.ends_with(".toml")
    }

    /// The file's lines with their numbers, counted from 1.
    pub(crate) fn numbered_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// The folder of the root Cargo.toml. Asked for when the test runs, not when it is compiled: a target directory that
/// several checkouts share may hold a test that was compiled in another one.
pub(crate) fn root() -> PathBuf {
    let package = std::env::var("CARGO_MANIFEST_DIR").expect("cargo test says where the package is");
    Path::new(&package).parent().unwrap().to_path_buf()
}

/// A file that must be there.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}; every checkout has it"))
}

/// The root Cargo.toml.
pub(crate) fn root_manifest() -> toml::Table {
    parse("Cargo.toml")
}

/// Folders of all packages, as the root Cargo.toml lists them.
pub(crate) fn package_folders() -> Vec<String> {
    let manifest = root_manifest();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    members.iter().map(|member| member.as_str().unwrap().to_owned()).collect()
}

/// All packages.
pub(crate) fn packages() -> Vec<Package> {
    let load = |folder: String| {
        let manifest = parse(&format!("{folder}/Cargo.toml"));
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        Package { folder, name, manifest }
    };
    package_folders().into_iter().map(load).collect()
}

/// The package of this name.
pub(crate) fn package(name: &str) -> Package {
    packages().into_iter().find(|package| package.name == name).unwrap_or_else(|| panic!("no package {name}"))
}

/// Every text file the rules look at: those at the root, in `.ci`, `docs`, `examples` and the packages. What a
/// cluster or a build leaves behind in other folders is not ours to judge.
pub(crate) fn files() -> Vec<File> {
    let mut paths = Vec::new();
    for entry in sorted_entries(&root()) {
        if entry.is_file() {
            paths.push(entry);
        }
    }
    let mut folders: Vec<String> = ["docs", "examples", ".ci"].map(str::to_owned).to_vec();
    folders.extend(package_folders().iter().map(|folder| folder.split('/').next().unwrap().to_owned()));
    folders.sort();
    folders.dedup();
    for folder in folders {
        walk(&root().join(folder), &mut paths);
    }
    paths.iter().filter_map(|path| load(path)).collect()
}

/// All files of Rust.
pub(crate) fn rust_files() -> Vec<File> {
    files().into_iter().filter(File::is_rust).collect()
}

/// All files of Rust that are built into a library or a binary.
pub(crate) fn product_files() -> Vec<File> {
    files().into_iter().filter(File::is_product).collect()
}

fn parse(path: &str) -> toml::Table {
    read(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn load(path: &Path) -> Option<File> {
    let path_in_repository = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    let mut file = File { path: path_in_repository, text: String::new() };
    let known = file.is_rust() || file.is_script() || file.is_document() || file.is_manifest();
    if !known {
        return None;
    }
    file.text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", file.path));
    Some(file)
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in sorted_entries(folder) {
        let name = entry.file_name().unwrap().to_str().unwrap_or_default().to_owned();
        if entry.is_dir() && !["target", "onebox"].contains(&name.as_str()) {
            walk(&entry, paths);
        } else if entry.is_file() {
            paths.push(entry);
        }
    }
}

fn sorted_entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_package_and_root_file_is_seen() {
    let paths: Vec<String> = files().into_iter().map(|file| file.path).collect();
    for folder in package_folders() {
        let entry = [format!("{folder}/src/lib.rs"), format!("{folder}/src/main.rs")];
        assert!(entry.iter().any(|path| paths.contains(path)), "{folder} has neither src/lib.rs nor src/main.rs");
    }
    for path in ["Cargo.toml", "run.sh", ".ci/run", "tidy/tests/tidy/main.rs"] {
        assert!(paths.contains(&path.to_owned()), "{path} is not seen by the rules");
    }
}
