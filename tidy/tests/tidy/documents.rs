//! Documents that keep up with the code: the code map, the message table, the status table.

use pegasus_wire::{MessageKind, Status};

use crate::report;
use crate::workspace::{package_folders, read, root};

#[test]
fn the_code_map_names_every_package() {
    let map = code_map();
    let missing: Vec<String> =
        package_folders().into_iter().filter(|folder| !names_folder(&map, folder)).map(|f| format!("{f}/")).collect();
    report("the code map of docs/architecture.md lacks these folders (one per line, with the slash):", &missing);
}

#[test]
fn the_code_map_names_nothing_that_is_gone() {
    let gone: Vec<String> =
        code_map().iter().filter_map(|line| folder_of(line)).filter(|folder| !root().join(folder).is_dir()).collect();
    report("the code map of docs/architecture.md names folders that do not exist:", &gone);
}

#[test]
fn the_protocol_document_has_every_message() {
    let document = read("docs/protocol.md");
    let mut breaches = Vec::new();
    for (kind, name) in MessageKind::ALL {
        let number = kind.0.to_string();
        if !rows(&document).iter().any(|cells| cells.len() > 4 && cells[0] == *name && cells[1] == number) {
            breaches.push(format!("| `{name}` | {number} | source | target | when | answer |"));
        }
    }
    report("docs/protocol.md lacks these rows of its message table:", &breaches);
}

#[test]
fn the_protocol_document_has_every_status_with_its_advice() {
    let document = read("docs/protocol.md");
    let mut breaches = Vec::new();
    for status in Status::ALL {
        let expected = [format!("{status:?}"), status.code().to_string(), format!("{:?}", status.advice())];
        if !rows(&document).iter().any(|cells| cells.len() > 3 && cells[..3] == expected) {
            breaches.push(format!("| `{}` | {} | {} | meaning |", expected[0], expected[1], expected[2]));
        }
    }
    report("docs/protocol.md lacks these rows of its status table:", &breaches);
}

#[test]
fn the_protocol_document_has_nothing_that_is_gone() {
    let document = read("docs/protocol.md");
    let known = |name: &str| {
        MessageKind::ALL.iter().any(|(_, kind)| *kind == name)
            || Status::ALL.iter().any(|status| format!("{status:?}") == name)
    };
    let numbered = |cells: &&Vec<String>| cells.len() > 3 && cells[1].parse::<u16>().is_ok();
    let gone: Vec<String> =
        rows(&document).iter().filter(numbered).map(|cells| cells[0].clone()).filter(|name| !known(name)).collect();
    report("docs/protocol.md has rows for messages or statuses that rpc/wire does not know:", &gone);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut breaches = Vec::new();
    for file in crate::workspace::files().iter().filter(|file| file.is_document()) {
        let folder = root().join(&file.path).parent().unwrap().to_path_buf();
        for target in link_targets(&file.text) {
            let path = target.split('#').next().unwrap_or_default();
            let outside = target.contains("://") || target.starts_with("mailto:");
            if !outside && !path.is_empty() && !folder.join(path).exists() {
                breaches.push(format!("{}: {target}", file.path));
            }
        }
    }
    report("links to files that do not exist:", &breaches);
}

/// The lines of the section "Code map" of docs/architecture.md.
fn code_map() -> Vec<String> {
    let document = read("docs/architecture.md");
    let is_heading = |line: &str| line.starts_with('#');
    let section: Vec<String> = document
        .lines()
        .skip_while(|line| !(is_heading(line) && line.to_lowercase().contains("code map")))
        .skip(1)
        .take_while(|line| !line.starts_with("# ") && !line.starts_with("## "))
        .map(str::to_owned)
        .collect();
    assert!(
        !section.is_empty(),
        "docs/architecture.md needs a section \"Code map\", one folder per line: rpc/wire/ ..."
    );
    section
}

fn names_folder(map: &[String], folder: &str) -> bool {
    map.iter().any(|line| folder_of(line).is_some_and(|named| named.trim_end_matches('/') == folder))
}

/// The folder a line of the map begins with (`rpc/wire/  what it is`, or the first cell of a table).
fn folder_of(line: &str) -> Option<String> {
    let first = line.trim_start_matches(['|', ' ', '-', '*', '`']).split([' ', '`', '|']).next()?;
    (first.len() > 1 && first.ends_with('/')).then(|| first.to_owned())
}

/// The cells of every table row, without blanks and backticks.
fn rows(document: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    document.lines().filter(|line| line.trim_start().starts_with('|')).map(cells).collect()
}

/// Targets of `[text](target)`.
fn link_targets(document: &str) -> Vec<String> {
    let target = |rest: &str| Some(rest[..rest.find(')')?].to_owned());
    document.split("](").skip(1).filter_map(target).collect()
}

#[test]
fn rows_and_links_are_read() {
    assert_eq!(rows("text\n| `GET` | 16 | a |\n")[0], ["GET", "16", "a"]);
    assert_eq!(link_targets("see [a](docs/x.md#y) and [b](http://c)"), ["docs/x.md#y", "http://c"]);
    assert_eq!(folder_of("| `rpc/wire/` | pure |").as_deref(), Some("rpc/wire/"));
    assert_eq!(folder_of("rpc/            the transport").as_deref(), Some("rpc/"));
    assert_eq!(folder_of("and/or nothing"), None);
}
