//! Every word of the shell, said to a real cluster as a user says it: in a terminal, with --json, and at the prompt.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use pegasus_shell::words::split;
use serde_json::{Value, json};
use support::TestCluster;
use tempfile::TempDir;

const PORT_OFFSET: u16 = 29700;
const TABLE: &str = "words";
const PARTITIONS: usize = 4;
/// A bound on what is awaited; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command printed and how it ended.
struct Said {
    code: i32,
    out: String,
    errors: String,
}

/// Says lines to the shell.
struct Shell<'a> {
    cluster: &'a TestCluster,
    directory: TempDir,
}

impl Shell<'_> {
    /// Says one line about the table; `--json` may be part of it.
    fn say(&self, line: &str) -> Said {
        let mut command = self.cluster.shell();
        command.args(["--table", TABLE]).args(split(line).unwrap()).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap(), out: text(output.stdout), errors: text(output.stderr) }
    }

    /// What a line prints for people, if it ends well.
    fn text(&self, line: &str) -> String {
        let said = self.say(line);
        assert_eq!(said.code, 0, "{line}: {}{}", said.out, said.errors);
        said.out
    }

    /// What a line prints for programs, if it ends with this code.
    fn json_with(&self, line: &str, code: i32) -> Value {
        let said = self.say(&format!("--json {line}"));
        assert_eq!(said.code, code, "{line}: {}{}", said.out, said.errors);
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{line}: {error}: {}", said.out))
    }

    fn json(&self, line: &str) -> Value {
        self.json_with(line, 0)
    }

    /// Why a line fails.
    fn failure(&self, line: &str) -> String {
        let said = self.say(line);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{line}: {}", said.errors);
        said.errors
    }

    /// The lines a scan prints.
    fn lines(&self, line: &str) -> Vec<String> {
        self.text(line).lines().map(str::to_owned).collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn count(&self) -> u64 {
        self.json("count")["count"].as_u64().unwrap()
    }
}

fn rows(shell: &Shell<'_>) {
    assert_eq!(shell.text("set h s v"), "ok\n");
    assert_eq!(shell.text("get h s"), "v\n");
    assert_eq!(shell.json("get h s"), json!({"found": true, "value": "v"}));
    assert!(shell.failure("set '' s v").contains("hash key"));
    let missing = shell.say("get h none");
    assert_eq!((missing.code, missing.out.as_str(), missing.errors.as_str()), (1, "", "not found\n"));
    assert_eq!(shell.json_with("get h none", 1), json!({"found": false}));
    assert_eq!(shell.text("exist h s"), "true\n");
    assert_eq!(shell.json_with("exist h none", 1), json!({"found": false}));
    assert_eq!(shell.text("ttl h s"), "never expires\n");

    shell.text("set h t v 1000");
    let left = shell.json("ttl h t")["ttl"].as_u64().unwrap();
    assert!((900..=1000).contains(&left), "{left}");

    // Any bytes go in and come out, and what is printed can be typed again.
    shell.text(r"set \x00\xff '' 'a\tb\\'");
    assert_eq!(shell.text(r"get \0\xff ''"), "a\\tb\\\\\n");
    assert_eq!(shell.text(r"get \0\xff '' --raw"), "a\tb\\");
    assert_eq!(shell.text(r"get \0\xff '' --escape_all"), "\\x61\\x09\\x62\\x5c\n");
    assert_eq!(shell.json(r"get \0\xff ''")["value"], "a\tb\\");

    assert_eq!(shell.text("del h s"), "ok\n");
    assert_eq!(shell.say("get h s").code, 1);

    assert_eq!(shell.text("incr n i"), "1\n");
    assert_eq!(shell.json("incr n i -5"), json!({"value": -4}));
    assert_eq!(shell.text("incr n i 4 --ttl 1000"), "0\n");
    assert!(shell.json("ttl n i")["ttl"].as_u64().unwrap() > 900);
    shell.text("incr n i --clear_ttl");
    assert_eq!(shell.text("ttl n i"), "never expires\n");
    shell.text("set n text abc");
    assert!(shell.failure("incr n text").contains("integer"));
    assert_eq!(shell.text("get n text"), "abc\n");
    for line in ["del h t", r"del \0\xff ''", "multi_del n i text"] {
        shell.text(line);
    }
    assert_eq!(shell.count(), 0);
}

fn rows_of_one_hash_key(shell: &Shell<'_>) {
    assert_eq!(shell.text("multi_set m a 1 b 22 c 333 d 4444 e \"\""), "ok\n");
    assert!(shell.failure("multi_set m a 1 b").contains("in turns"));
    assert_eq!(shell.text("multi_get m d none a"), "sort_key  value\nd         4444\na         1\n(2 rows)\n");
    assert_eq!(shell.text("multi_get m e a -i"), "sort_key\ne\na\n(2 rows)\n");
    let keys = |line: &str| -> Vec<String> {
        let answer = shell.json(line);
        let rows = answer["rows"].as_array().unwrap();
        rows.iter().map(|row| row["sort_key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys("multi_get m"), ["a", "b", "c", "d", "e"]);
    assert_eq!(keys("multi_get_sortkeys m -n 2"), ["a", "b"]);
    assert_eq!(keys("multi_get_range m b d"), ["b", "c"]);
    assert_eq!(keys("multi_get_range m b d --start_inclusive false --stop_inclusive true"), ["c", "d"]);
    assert_eq!(keys("multi_get_range m b '' --reverse --max_count 2"), ["d", "e"]);
    assert_eq!(keys("multi_get_range m --max_size 3"), ["a", "b"]);
    assert_eq!(keys("multi_get_range m -s anywhere -y c"), ["c"]);
    assert_eq!(shell.json("multi_get_range m -n 2 -i")["complete"], false);
    assert!(shell.text("multi_get_range m -n 2").contains("(2 rows, and there are more)"));
    assert_eq!(shell.json_with("multi_get_range m x y", 1)["rows"], json!([]));
    assert!(shell.failure("multi_get_range m -s prefix").contains("--sort-key-filter-pattern"));

    assert_eq!(shell.text("count m"), "5\n");
    assert_eq!(shell.json("sortkey_count none")["count"], 0);
    assert_eq!(shell.text("multi_del m a none"), "ok\n");
    assert_eq!(shell.text("multi_del_range m b d"), "ok\n");
    assert_eq!(keys("multi_get m"), ["d", "e"]);
    shell.text("multi_set m x1 1 y1 1 x2 1 z 1");
    assert_eq!(shell.text("multi_del_range m '' '' -s prefix -y x"), "deleted 2 rows\n");
    assert_eq!(keys("multi_get m"), ["d", "e", "y1", "z"]);
    shell.text("multi_del_range m");
    assert_eq!(shell.count(), 0);
}

fn conditions(shell: &Shell<'_>) {
    let put = "check_and_set k -c s --check_type not_exist -v one -r";
    assert_eq!(shell.json(put), json!({"written": true, "exists": false, "value": null}));
    assert_eq!(shell.json_with(put, 1), json!({"written": false, "exists": true, "value": "one"}));
    assert_eq!(shell.text("check_and_set k -c s --check_type match_prefix -o on -s other -v 7"), "written\n");
    let said = shell.say("check_and_set k -c other --check_type int_less -o 7 -v 8 -r");
    assert_eq!((said.code, said.out.as_str()), (1, "not written: the check failed\nthe value checked was 7\n"));
    assert!(shell.failure("check_and_set k -c s --check_type int_equal -o 1 -v 2").contains("integer"));
    assert!(shell.failure("check_and_set k -c s --check_type bytes_equal -v 2").contains("--check_operand"));
    assert!(shell.failure("check_and_set k -c s --check_type like -v 2").contains("bytes_greater_or_equal"));

    let change = "check_and_mutate k set a 1 set_ttl b 2 1000 del s del_range o p -c s --check_type exist";
    assert_eq!(shell.text(change), "written\n");
    assert_eq!(shell.text("multi_get k"), "sort_key  value\na         1\nb         2\n(2 rows)\n");
    assert!(shell.json("ttl k b")["ttl"].as_u64().unwrap() > 900);
    assert_eq!(shell.say(change).code, 1);
    assert!(shell.failure("check_and_mutate k put a 1 -c a --check_type exist").contains("set SORT_KEY VALUE"));

    assert_eq!(shell.text("compare_exchange k a 1 one"), "exchanged\n");
    let said = shell.say("compare_exchange k a 1 two");
    assert_eq!((said.code, said.out.as_str()), (1, "not exchanged: the value is one\n"));
    assert_eq!(shell.json_with("compare_exchange k none x y", 1), json!({"exchanged": false, "found": false}));
    assert_eq!(shell.text("compare_exchange k none new --expect_missing --ttl 1000"), "exchanged\n");
    assert_eq!(shell.text("multi_get k -i"), "sort_key\na\nb\nnone\n(3 rows)\n");
    shell.text("multi_del_range k");
}

/// Rows `l.. -> a, b` under hash keys of mixed lengths.
const HASH_KEYS: [&str; 6] = ["a", "aa", "ab", "b", "ba", "c"];

fn scans(shell: &Shell<'_>) {
    for hash_key in HASH_KEYS {
        shell.text(&format!("multi_set {hash_key} a 1 b {hash_key}"));
    }
    assert_eq!(shell.lines("hash_scan ab"), ["ab\ta\t1", "ab\tb\tab"]);
    assert_eq!(shell.lines("hash_scan ab b"), ["ab\tb\tab"]);
    assert_eq!(shell.lines("hash_scan ab -r -i"), ["ab\tb", "ab\ta"]);
    assert_eq!(shell.lines("hash_scan ab -s exact -y a --expiry"), ["ab\ta\t1\t0"]);
    assert_eq!(shell.lines("hash_scan ab -v exact -z 1 -i"), ["ab\ta"]);

    let all: BTreeSet<String> =
        HASH_KEYS.iter().flat_map(|key| [format!("{key}\ta\t1"), format!("{key}\tb\t{key}")]).collect();
    assert_eq!(shell.lines("full_scan").into_iter().collect::<BTreeSet<_>>(), all);
    assert_eq!(shell.lines("scan --reverse").into_iter().collect::<BTreeSet<_>>(), all);
    let limited = shell.say("full_scan -n 5");
    assert_eq!(limited.out.lines().count(), 5);
    assert_eq!(limited.errors, "(5 rows; there are more, --max_count 0 prints all)\n");
    let begins = shell.lines("full_scan --hash_key_filter_type prefix -x a -s prefix -y a -i");
    assert_eq!(begins.into_iter().collect::<BTreeSet<_>>(), ["a\ta", "aa\ta", "ab\ta"].map(str::to_owned).into());
    let by_partition = (0..PARTITIONS).flat_map(|index| shell.lines(&format!("full_scan -p {index}")));
    assert_eq!(by_partition.collect::<BTreeSet<_>>(), all);
    assert!(shell.failure("full_scan -p 4").contains("counted from 0"));
    let file = shell.file("rows.jsonl");
    shell.text(&format!("full_scan -o {}", file.display()));
    let content = fs::read_to_string(&file).unwrap();
    let rows: Vec<Value> = content.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), all.len());
    assert!(rows.contains(&json!({"hash_key": "ba", "sort_key": "b", "value": "ba"})));

    let keys = |line: &str| shell.lines(&format!("{line} -i --stop_sort_key b"));
    let expected = |keys: &[&str]| keys.iter().map(|key| format!("{key}\ta")).collect::<Vec<_>>();
    assert_eq!(keys("sorted_scan"), expected(&HASH_KEYS));
    assert_eq!(keys("sorted_scan aa b"), expected(&["aa", "ab"]));
    assert_eq!(keys("sorted_scan aa b -a false -b true"), expected(&["ab", "b"]));
    let mut reversed = HASH_KEYS;
    reversed.reverse();
    assert_eq!(keys("sorted_scan --reverse"), expected(&reversed));
    assert_eq!(shell.lines("sorted_scan -r -n 1"), ["c\tb\tc"]);
}

fn hashes(shell: &Shell<'_>) {
    let answer = shell.json("hash hashkey s");
    assert_eq!(answer["hash"], "1299d9b06672773a");
    assert_eq!(answer["partition"], 0x1299_d9b0_6672_773a_u64 % PARTITIONS as u64);
    assert!(answer["primary"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(shell.text("hash test").contains("(0xf9bbbecefebab143)"));
}

fn all_rows_of_a_table(shell: &Shell<'_>, other: &TestCluster) {
    let counted = shell.json("count_data");
    assert_eq!((&counted["rows"], counted["partitions"].as_array().unwrap().len()), (&json!(12), PARTITIONS));
    let counted = shell.json("count_data -d -a -n 2");
    assert_eq!((&counted["rows"], &counted["hash_keys"]), (&json!(12), &json!(6)));
    assert_eq!((&counted["sizes"]["value"]["max"], &counted["sizes"]["row"]["min"]), (&json!(2), &json!(3)));
    assert_eq!(counted["sizes"]["largest"][0]["bytes"], 5);
    assert!(shell.text("count_data -s exact -y a").contains("all           6\n"));
    assert!(shell.text("count_data -v exact -z 1").contains("all           6\n"));

    // Into another table of this cluster, with the time to live, then without overwriting.
    shell.text("set a t v 1000");
    shell.text("set c x gone");
    shell.text("create words_copy -p 2");
    let progress = shell.file("copy.progress");
    let copied = shell.json(&format!("copy_data -a words_copy --progress_file {} -b 1", progress.display()));
    assert_eq!((&copied["rows"], &copied["complete"]), (&json!(14), &json!(true)));
    assert_eq!(shell.json("count -t words_copy")["count"], 14);
    assert!(shell.json("ttl a t -t words_copy")["ttl"].as_u64().unwrap() > 900);
    let resumed = shell.json(&format!("copy_data -a words_copy --progress_file {} -b 1 --resume", progress.display()));
    assert_eq!(resumed["rows"], 0, "every partition was copied before");
    let other_terms = format!("copy_data -a words_copy --progress_file {} --resume -e", progress.display());
    assert!(shell.failure(&other_terms).contains("options"));
    shell.text("set a a changed -t words_copy");
    shell.text("del c x -t words_copy");
    let kept = shell.json("copy_data -a words_copy --no_overwrite");
    assert_eq!((&kept["rows"], &kept["kept"]), (&json!(1), &json!(13)));
    assert_eq!(shell.text("get a a -t words_copy"), "changed\n");
    assert!(shell.failure("copy_data -a words").contains("the same table"));

    // Into another cluster.
    let (meta, tls) = (other.meta_address(), other.path().join("tls"));
    let elsewhere =
        format!("copy_data -a temp -c {meta} --target_tls {} -x a --hash_key_filter_type exact", tls.display());
    assert_eq!(shell.json(&elsewhere)["rows"], 3);
    assert_eq!(shell.json(&format!("count -t temp --meta {meta} --tls {}", tls.display()))["count"], 3);

    assert!(shell.failure("clear_data").contains("--force"));
    assert_eq!(shell.count(), 14);
    assert!(shell.text("clear_data -f -s exact -y b").starts_with("deleted 6 rows in "));
    assert_eq!(shell.json("clear_data --force")["rows"], 8);
    assert_eq!(shell.count(), 0);
    let file = shell.file("rows.tsv");
    assert_eq!(shell.json(&format!("export {} -t words_copy", file.display()))["rows"], 14);
    assert_eq!(shell.json(&format!("import {}", file.display()))["rows"], 14);
    assert_eq!(shell.text("get a a"), "changed\n");
}

fn environment(shell: &Shell<'_>) {
    let set = shell.json("set_app_envs default_ttl 1000 business.info 'a b'");
    assert_eq!(set["environment"], json!({"default_ttl": "1000", "business.info": "a b"}));
    let listed = "setting        value\nbusiness.info  a b\ndefault_ttl    1000\n";
    assert_eq!(
        (shell.text("get_app_envs"), shell.text("table env words list")),
        (listed.to_owned(), listed.to_owned())
    );
    let refused = shell.failure("table env set business.info x default_ttl soon");
    assert!(refused.contains("default_ttl") && refused.contains("whole number"), "{refused}");
    assert!(shell.failure("table env words set no.such 1").contains("rocksdb.usage_scenario"));
    assert_eq!(shell.text("get_app_envs"), listed, "all or nothing");
    until("default_ttl is in force", || {
        shell.text("set e s v");
        shell.json("ttl e s")["ttl"].is_u64().then_some(())
    });
    shell.text("del_app_envs default_ttl");
    assert_eq!(shell.json("table env list")["environment"], json!({"business.info": "a b"}));
    assert!(shell.failure("table env no_such list").contains("no_such"), "what is named is meant, not the session's");
    shell.text("set_app_envs manual_compact.disabled true");
    assert!(shell.failure("table compact words start").contains("manual_compact.disabled"));
    shell.text("table env words clear --prefix manual_compact.");
    assert_eq!(shell.json("get_app_envs")["environment"], json!({"business.info": "a b"}));
    assert_eq!(shell.text("clear_app_envs -a"), "no settings: all defaults\n");

    let never = shell.say("table compact status");
    assert!(never.out.contains("no compaction was asked for"), "{}", never.out);
    let compacted = shell.json("table compact start --bottommost --wait_seconds 60");
    assert_eq!((&compacted["done"], compacted["copies"].as_array().unwrap().len()), (&json!(true), 3 * PARTITIONS));
    assert!(shell.text("table compact words status").contains("all 12 copies are done"));
}

fn life_of_a_table(shell: &Shell<'_>) {
    assert!(shell.failure("create words").contains("words"));
    assert!(shell.failure("create three -p 3").contains("partition_count_max"));
    assert!(shell.failure("create wrong -e default_ttl=soon").contains("whole number"));
    let made = shell.json("create brief -p 2 -e default_ttl=70");
    assert_eq!(made["environment"], json!({"default_ttl": "70"}));
    let number = made["table"].as_u64().unwrap();
    shell.text("set h s old -t brief");
    let detailed = shell.json("app brief -d");
    assert_eq!((detailed["copies"].as_array().unwrap().len(), &detailed["partition_count"]), (6, &json!(2)));
    assert!(shell.text("table describe brief --detailed").contains("primary"));

    assert_eq!(shell.json("rename brief short")["table"], number);
    assert_eq!(shell.text("get h s -t short"), "old\n");
    assert!(shell.failure("get h s -t brief").contains("brief"));
    let dropped = shell.text("drop short --reserve_seconds 3600");
    assert!(dropped.contains("held for 1 h") && dropped.contains(&format!("recall {number}")), "{dropped}");
    assert!(shell.failure("get h s -t short").contains("short"));
    assert!(!shell.text("ls").contains("short") && shell.text("ls -a").contains("dropped, held until"));
    assert_eq!(shell.text("drop short --if_exists"), "there is no table short\n");
    assert!(shell.failure("drop short").contains("short"));

    // The name is free at once, and nothing of the old table is in the new one.
    shell.text("table create short -p 2");
    assert_eq!(shell.json("count -t short")["count"], 0);
    assert!(shell.failure(&format!("recall {number}")).contains("short"));
    assert_eq!(shell.json(&format!("recall {number} brief"))["name"], "brief");
    assert_eq!(shell.text("get h s -t brief"), "old\n");

    shell.text("drop brief");
    assert!(shell.failure(&format!("table purge {number}")).contains("--force"));
    shell.text(&format!("table purge {number} --force"));
    assert!(shell.failure(&format!("recall {number}")).contains(&number.to_string()));
    let tables = shell.json("table list --all");
    let names: Vec<&str> = tables["tables"].as_array().unwrap().iter().filter_map(|t| t["name"].as_str()).collect();
    assert!(names.contains(&"short") && !names.contains(&"brief"), "{names:?}");
}

fn cluster(shell: &Shell<'_>) {
    let info = shell.json("cluster_info");
    assert_eq!((&info["nodes"], &info["nodes_alive"]), (&json!(3), &json!(3)));
    assert_eq!(info["healthy_partitions"], info["partitions"]);
    assert_eq!(shell.json("nodes")["nodes"].as_array().unwrap().len(), 3);
    assert!(shell.text("cluster_info").contains("3 of 3") && shell.text("nodes").contains("primaries"));
    assert!(shell.text("status").contains(TABLE));
    assert_eq!(shell.text("partition diagnose --all").lines().last().unwrap().split(' ').next(), Some("all"));
    assert_eq!(shell.json("partition list")["partitions"].as_array().unwrap().len(), PARTITIONS);
}

/// The same words at the prompt, and those that only the prompt has.
fn prompt(shell: &Shell<'_>) {
    let lines = [
        "use",
        "use words",
        "use",
        "set 'a b' s \"x y\"",
        "get 'a b' s",
        "escape_all true",
        "get 'a b' s",
        "escape_all",
        "escape_all false",
        "timeout 3000",
        "timeout",
        "get 'a b' none",
        "nonsense",
        "timeout soon",
        "help incr",
        "version",
        "exit",
        "set never reached 1",
    ];
    let mut command = shell.cluster.shell();
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let (out, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let said = "no table; use TABLE chooses one\nwords\nok\nx y\n\\x78\\x20\\x79\ntrue\n3000 ms\n";
    assert!(out.contains(said), "{out}");
    assert!(out.contains("--clear-ttl") && out.contains("pegasus 0."), "{out}");
    for word in ["not found", "nonsense", "timeout is written: timeout [MILLISECONDS]"] {
        assert!(errors.contains(word), "{word}: {errors}");
    }
    assert_eq!(shell.say("exist never reached").code, 1);
}

fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?}: {what}");
    }
}

#[test]
fn every_word_does_what_it_says() {
    let (here, there) = (TestCluster::new(PORT_OFFSET), TestCluster::new(PORT_OFFSET + 400));
    here.start(1);
    there.start(1);
    let shell = Shell { cluster: &here, directory: TempDir::new().unwrap() };
    assert_eq!(shell.json(&format!("create {TABLE} -p {PARTITIONS}"))["partition_count"], PARTITIONS);
    rows(&shell);
    rows_of_one_hash_key(&shell);
    conditions(&shell);
    hashes(&shell);
    scans(&shell);
    all_rows_of_a_table(&shell, &there);
    environment(&shell);
    life_of_a_table(&shell);
    cluster(&shell);
    prompt(&shell);
}
