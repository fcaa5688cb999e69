//! Files that are not what was written: always an error, never wrong rows.

use std::fs;
use std::path::Path;

use pegasus_engine::table::{Bottommost, OpenMode, ReadMode, Scan, ScanOutcome, Table, TableError};
use pegasus_wire::key::encode;

use crate::support::*;

fn open(directory: &Path, mode: OpenMode) -> Result<Table, TableError> {
    Table::open(&directory.join("rdb"), &shared(), PARTITION, mode)
}

fn fill(directory: &Path) -> ScanOutcome {
    let table = create(directory);
    for round in 0..3 {
        let rows = (1..=100).map(|row| round * 100 + row);
        let batch: Vec<_> = rows.map(|row| put(row, b"h", &row.to_be_bytes(), &[row as u8; 300], 0)).collect();
        apply(&table, &batch);
        table.flush().unwrap();
    }
    scan(&table, &everything(0))
}

/// Everything that can be read, or the first error.
fn read_all(directory: &Path) -> Result<ScanOutcome, TableError> {
    let table = open(directory, OpenMode::Existing)?;
    for row in 1..=300u64 {
        table.read_row(&encode(b"h", &row.to_be_bytes()), 0, ReadMode::Blocking)?;
    }
    match table.scan(&everything(0), ReadMode::Blocking)? {
        Scan::Done(outcome) => Ok(outcome),
        Scan::WouldBlock => panic!("a blocking scan never would block"),
    }
}

#[test]
fn a_table_that_has_to_exist_is_not_made_up() {
    let root = tempfile::tempdir().unwrap();
    let error = open(root.path(), OpenMode::Existing).unwrap_err();
    assert!(error.is_damage(), "{error}");
    assert!(!root.path().join("rdb/CURRENT").exists());
    drop(open(root.path(), OpenMode::CreateIfMissing).unwrap());
    drop(open(root.path(), OpenMode::Existing).unwrap());
}

#[test]
fn missing_files_are_damage() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("whole");
    fill(&whole);
    for (case, beginning, ending) in
        [("current", "CURRENT", ""), ("manifest", "MANIFEST", ""), ("rows", "", ".sst"), ("all", "", "")]
    {
        let broken = root.path().join(case);
        crash_image(&whole.join("rdb"), &broken.join("rdb"));
        let victims = files_named(&broken.join("rdb"), beginning);
        let mut removed = 0;
        for victim in victims.iter().filter(|path| path.to_str().unwrap().ends_with(ending)) {
            fs::remove_file(victim).unwrap();
            removed += 1;
        }
        assert!(removed > 0, "{case}");
        let error = open(&broken, OpenMode::Existing).expect_err(case);
        assert!(error.is_damage(), "{case}: {error}");
    }
}

#[test]
fn altered_row_files_never_give_wrong_rows() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("whole");
    let expected = fill(&whole);
    let victim = files_ending(&whole.join("rdb"), ".sst").remove(0);
    let (name, bytes) = (victim.file_name().unwrap().to_owned(), fs::read(&victim).unwrap());
    let mut reported = 0;
    let places: Vec<_> = (0..bytes.len()).step_by(bytes.len() / 60).collect();
    for place in &places {
        let broken = root.path().join(place.to_string());
        crash_image(&whole.join("rdb"), &broken.join("rdb"));
        let mut altered = bytes.clone();
        altered[*place] ^= 0x10;
        fs::write(broken.join("rdb").join(&name), altered).unwrap();
        match read_all(&broken) {
            Ok(outcome) => assert!(outcome == expected, "wrong rows after a flip at {place}"),
            Err(error) => {
                assert!(error.is_damage(), "{place}: {error}");
                reported += 1;
            }
        }
        fs::remove_dir_all(broken).unwrap();
    }
    assert!(reported * 10 > places.len() * 8, "{reported} of {} flips reported", places.len());
}

#[test]
fn altered_or_cut_row_files_of_any_length_are_damage() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("whole");
    fill(&whole);
    let victim = files_ending(&whole.join("rdb"), ".sst").remove(0);
    let (name, bytes) = (victim.file_name().unwrap().to_owned(), fs::read(&victim).unwrap());
    for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        let broken = root.path().join(length.to_string());
        crash_image(&whole.join("rdb"), &broken.join("rdb"));
        fs::write(broken.join("rdb").join(&name), &bytes[..length]).unwrap();
        let error = read_all(&broken).expect_err("a cut file");
        assert!(error.is_damage(), "{length}: {error}");
    }
}

#[test]
fn a_compaction_that_meets_an_altered_file_has_not_ended_whole() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path());
    let victim = files_ending(&root.path().join("rdb"), ".sst").remove(0);
    let mut bytes = fs::read(&victim).unwrap();
    bytes[1000] ^= 0x10;
    fs::write(&victim, bytes).unwrap();
    let table = open(root.path(), OpenMode::Existing).unwrap();
    let error = table.compact(Bottommost::Force).unwrap_err();
    assert!(matches!(error, TableError::Failed { action: "compact", .. }), "{error}");
}

#[test]
fn a_table_in_use_is_no_damage() {
    let root = tempfile::tempdir().unwrap();
    let _holder = create(root.path());
    let error = open(root.path(), OpenMode::Existing).unwrap_err();
    assert!(matches!(error, TableError::Failed { .. }) && !error.is_damage(), "{error}");
}
