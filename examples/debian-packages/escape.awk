# Text in the C-style escapes of the shell, in plain ASCII: every byte outside of printable ASCII becomes \xHH, so
# that two files that mean the same bytes are the same bytes. Needs LC_ALL=C: a character is a byte.

BEGIN {
    for (code = 1; code < 256; code++) ESCAPES[sprintf("%c", code)] = sprintf("\\x%02x", code)
    for (code = 32; code < 127; code++) ESCAPES[sprintf("%c", code)] = sprintf("%c", code)
    ESCAPES["\t"] = "\\t"
    ESCAPES["\n"] = "\\n"
    ESCAPES["\r"] = "\\r"
    ESCAPES["\\"] = "\\\\"
}

# Bytes to text.
function escape(bytes) {
    return bytes ~ /[^ -~]|\\/ ? replace(bytes) : bytes
}

# A column of an exported line: escaped already, perhaps with characters of other scripts as they are. Only these are
# replaced; what stands behind a backslash stays.
function to_ascii(column,    count, parts, part, out) {
    if (column !~ /[^ -~]/) return column
    count = split(column, parts, "\\")
    out = replace(parts[1])
    for (part = 2; part <= count; part++) out = out "\\" replace(parts[part])
    return out
}

function replace(bytes,    position, out) {
    out = ""
    for (position = 1; position <= length(bytes); position++) out = out ESCAPES[substr(bytes, position, 1)]
    return out
}
