# An exported TSV file in plain ASCII, for comparison with the input. Used together with escape.awk.

BEGIN { FS = OFS = "\t" }

/[^\t -~]/ { for (column = 1; column <= NF; column++) $column = to_ascii($column) }
{ print }
