# Stanzas of a Debian package index to rows: package TAB field TAB text. See README.md for what becomes of packages
# that occur more than once. Used together with escape.awk.

/^[ \t]/ { continue_field(); next }
/^$/ { finish_stanza(); next }
{ begin_field() }

END {
    if (failed) exit 1
    finish_stanza()
    printf "%d packages, %d rows, %d left out as repeated\n", packages, rows, repeated > "/dev/stderr"
}

function begin_field(    colon, text) {
    colon = index($0, ":")
    if (colon < 2) fail("neither a field nor its continuation")
    text = substr($0, colon + 1)
    sub(/^[ \t]+/, "", text)
    names[++fields] = substr($0, 1, colon - 1)
    values[fields] = escape(text)
}

# A field goes on: its line breaks and the blanks behind them belong to its text.
function continue_field() {
    if (!fields) fail("a continuation without a field")
    values[fields] = values[fields] "\\n" escape($0)
}

function finish_stanza(    field, package, version, suffix) {
    if (!fields) return
    for (field = 1; field <= fields; field++) {
        if (names[field] == "Package") package = values[field]
        if (names[field] == "Version") version = values[field]
        if (names[field] == "Architecture") version = version "/" values[field]
    }
    if (package == "") fail("a stanza without a package name")
    suffix = package in known ? "@" version : ""
    if ((package, suffix) in seen) {
        repeated += fields - 1
    } else {
        write_rows(package, suffix)
    }
    known[package]
    seen[package, suffix]
    fields = 0
}

function write_rows(package, suffix,    field) {
    packages++
    for (field = 1; field <= fields; field++) {
        if (names[field] != "Package") {
            print package "\t" names[field] suffix "\t" values[field]
            rows++
        }
    }
}

function fail(reason) {
    printf "line %d: %s: %s\n", NR, reason, $0 > "/dev/stderr"
    failed = 1
    exit 1
}
