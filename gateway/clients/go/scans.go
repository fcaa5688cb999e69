package main

import (
	"fmt"
	"sort"
	"strings"

	"github.com/apache/incubator-pegasus/go-client/pegasus"
)

// scanRows is how many rows the scanned hash key has: more than two of the client's own batches of 1,000.
const scanRows = 2500

// scanning are options of a scanner. The client changes them, so each scanner needs its own.
func scanning(change func(*pegasus.ScannerOptions)) *pegasus.ScannerOptions {
	o := pegasus.NewScanOptions()
	change(o)
	return o
}

func asIs(*pegasus.ScannerOptions) {}

// row is one row of a scan.
type row struct {
	hash, sort, value string
}

// read takes all rows out of a scanner.
func (s *suite) read(what string, scanner pegasus.Scanner) []row {
	var rows []row
	for len(rows) <= 1000*1000 {
		ctx, cancel := within(operationTime)
		completed, hash, sort, value, err := scanner.Next(ctx)
		cancel()
		if err != nil {
			s.noError(what+": next", err)
			break
		}
		if completed {
			break
		}
		rows = append(rows, row{string(hash), string(sort), string(value)})
	}
	s.noError(what+": close", scanner.Close())
	return rows
}

// scan checks the sort keys that a scanner of one hash key gives, joined by spaces.
func (s *suite) scan(what string, hash []byte, start, stop string, o *pegasus.ScannerOptions, want string) []row {
	ctx, cancel := within(operationTime)
	defer cancel()
	scanner, err := s.table.GetScanner(ctx, hash, []byte(start), []byte(stop), o)
	if !s.noError(what, err) {
		return nil
	}
	rows := s.read(what, scanner)
	s.equal(what, sorts(rows), want)
	for _, row := range rows {
		if row.hash != string(hash) {
			s.equal(what+": hash key", row.hash, string(hash))
		}
	}
	return rows
}

func sorts(rows []row) string {
	keys := make([]string, len(rows))
	for i, row := range rows {
		keys[i] = row.sort
	}
	return strings.Join(keys, " ")
}

// numbered is the sort key of a row of the large hash key.
func numbered(i int) string {
	return fmt.Sprintf("%05d", i)
}

// hashScanners checks scanners of one hash key: ranges, and more than one batch.
func (s *suite) hashScanners() {
	hash := s.key("scan")
	s.fill(hash, "a", "ab", "abc", "b", "ba", "c", "d")
	s.fill(append(hash, 0), "neighbour")
	inclusive := func(start, stop bool) func(*pegasus.ScannerOptions) {
		return func(o *pegasus.ScannerOptions) { o.StartInclusive, o.StopInclusive = start, stop }
	}
	cases := []struct {
		name, start, stop string
		change            func(*pegasus.ScannerOptions)
		want              string
	}{
		{"scan of all", "", "", asIs, "a ab abc b ba c d"},
		{"scan from", "b", "", asIs, "b ba c d"},
		{"scan from, exclusive", "b", "", inclusive(false, false), "ba c d"},
		{"scan to", "", "b", asIs, "a ab abc"},
		{"scan to, inclusive", "", "b", inclusive(true, true), "a ab abc b"},
		{"scan between", "ab", "c", inclusive(false, true), "abc b ba c"},
		{"scan of one", "c", "c", inclusive(true, true), "c"},
		{"scan between missing keys", "aa", "bb", asIs, "ab abc b ba"},
		{"scan of nothing", "x", "y", asIs, ""},
	}
	for _, one := range cases {
		for _, batch := range []int{1, 2, 3, 1000} {
			o := scanning(one.change)
			o.BatchSize = batch
			rows := s.scan(fmt.Sprint(one.name, ", batch ", batch), hash, one.start, one.stop, o, one.want)
			for _, row := range rows {
				s.equal(one.name+": value", row.value, "value of "+row.sort)
			}
		}
	}
	ctx, cancel := within(operationTime)
	defer cancel()
	_, err := s.table.GetScanner(ctx, hash, []byte("d"), []byte("a"), scanning(asIs))
	s.refused("scan backwards", err, "the scanning interval MUST NOT BE EMPTY")
	s.scan("scan of a missing hash key", s.key("scan of nobody"), "", "", scanning(asIs), "")
	s.largeScan()
}

// largeScan reads more rows than one batch has, in batches of several sizes.
func (s *suite) largeScan() {
	hash := s.key("large scan")
	var all []string
	for first := 0; first < scanRows; first += 500 {
		var keys []string
		for i := first; i < first+500; i++ {
			keys = append(keys, numbered(i))
		}
		s.fill(hash, keys...)
		all = append(all, keys...)
	}
	want := strings.Join(all, " ")
	for _, batch := range []int{7, 100, 1000, 5000, 0} {
		o := scanning(func(o *pegasus.ScannerOptions) { o.BatchSize = batch })
		if batch == 0 {
			o = scanning(asIs)
			o.NoValue = true
		}
		rows := s.scan(fmt.Sprint("large scan, batch ", batch), hash, "", "", o, want)
		wrong := 0
		for _, row := range rows {
			if row.value != "value of "+row.sort && batch != 0 || row.value != "" && batch == 0 {
				wrong++
			}
		}
		s.equal("wrong values of the large scan", wrong, 0)
	}
	o := scanning(func(o *pegasus.ScannerOptions) { o.BatchSize = 100 })
	s.scan("middle of the large scan", hash, numbered(1000), numbered(1250), o, strings.Join(all[1000:1250], " "))
}

// scanFilters checks filters on sort keys within one hash key.
func (s *suite) scanFilters() {
	hash := s.key("scan")
	cases := []struct {
		kind    pegasus.FilterType
		pattern string
		start   string
		want    string
	}{
		{pegasus.FilterTypeMatchPrefix, "a", "", "a ab abc"}, {pegasus.FilterTypeMatchPrefix, "ab", "", "ab abc"},
		{pegasus.FilterTypeMatchPrefix, "a", "ab", "ab abc"}, {pegasus.FilterTypeMatchPostfix, "a", "", "a ba"},
		{pegasus.FilterTypeMatchPostfix, "b", "", "ab b"}, {pegasus.FilterTypeMatchAnywhere, "b", "", "ab abc b ba"},
		{pegasus.FilterTypeMatchAnywhere, "xyz", "", ""}, {pegasus.FilterTypeMatchAnywhere, "", "", "a ab abc b ba c d"},
	}
	for _, one := range cases {
		for _, batch := range []int{1, 1000} {
			o := scanning(func(o *pegasus.ScannerOptions) {
				o.BatchSize = batch
				o.SortKeyFilter = pegasus.Filter{Type: one.kind, Pattern: []byte(one.pattern)}
			})
			what := fmt.Sprintf("filter %d %q, batch %d", one.kind, one.pattern, batch)
			s.scan(what, hash, one.start, "", o, one.want)
		}
	}
	o := scanning(func(o *pegasus.ScannerOptions) {
		o.SortKeyFilter = pegasus.Filter{Type: pegasus.FilterTypeMatchPostfix, Pattern: []byte("99")}
		o.BatchSize = 10
	})
	var want []string
	for i := 99; i < scanRows; i += 100 {
		want = append(want, numbered(i))
	}
	s.scan("filter of many rows", s.key("large scan"), "", "", o, strings.Join(want, " "))
}

// unorderedScanners reads the rows of many hash keys through scanners of all partitions.
func (s *suite) unorderedScanners() {
	want := map[row]bool{}
	for i := 0; i < 300; i++ {
		hash := s.key(fmt.Sprint("unordered", i))
		keys := []string{"x" + numbered(i), "y" + numbered(i), "z"}
		s.fill(hash, keys...)
		for _, key := range keys {
			want[row{string(hash), key, "value of " + key}] = true
		}
	}
	prefix := pegasus.Filter{Type: pegasus.FilterTypeMatchPrefix, Pattern: s.key("unordered")}
	mine := func(o *pegasus.ScannerOptions) { o.HashKeyFilter = prefix }
	for _, split := range []struct{ asked, want, batch int }{{1, 1, 1000}, {3, 3, 10}, {8, 8, 1000}, {100, 8, 1}} {
		o := scanning(mine)
		o.BatchSize = split.batch
		s.unordered(fmt.Sprint("unordered scan by ", split.asked), split.asked, split.want, o, want)
	}
	some := map[row]bool{}
	for row := range want {
		if row.sort == "z" {
			some[row] = true
		}
	}
	s.unordered("unordered scan of some sort keys", 4, 4, scanning(func(o *pegasus.ScannerOptions) {
		mine(o)
		o.SortKeyFilter = pegasus.Filter{Type: pegasus.FilterTypeMatchAnywhere, Pattern: []byte("z")}
	}), some)
	keys := map[row]bool{}
	for one := range want {
		keys[row{one.hash, one.sort, ""}] = true
	}
	s.unordered("unordered scan without values", 2, 2, scanning(func(o *pegasus.ScannerOptions) {
		mine(o)
		o.NoValue = true
	}), keys)
	s.wholeTable(want)
}

// unordered reads a table through several scanners and checks that each row came once.
func (s *suite) unordered(what string, asked, scanners int, o *pegasus.ScannerOptions, want map[row]bool) {
	ctx, cancel := within(operationTime)
	defer cancel()
	all, err := s.table.GetUnorderedScanners(ctx, asked, o)
	if !s.noError(what, err) || !s.equal(what+": scanners", len(all), scanners) {
		return
	}
	seen, twice, foreign := map[row]bool{}, 0, 0
	for _, scanner := range all {
		for _, row := range s.read(what, scanner) {
			if seen[row] {
				twice++
			}
			if !want[row] {
				foreign++
			}
			seen[row] = true
		}
	}
	s.equal(what+": rows", len(seen), len(want))
	s.equal(what+": rows that came twice", twice, 0)
	s.equal(what+": rows that nobody wants", foreign, 0)
}

// wholeTable reads everything there is, without a filter, and looks for the rows of this run.
func (s *suite) wholeTable(want map[row]bool) {
	ctx, cancel := within(operationTime)
	defer cancel()
	all, err := s.table.GetUnorderedScanners(ctx, 8, scanning(asIs))
	if !s.noError("scan of the whole table", err) {
		return
	}
	seen := map[string]int{}
	for _, scanner := range all {
		rows := s.read("scan of the whole table", scanner)
		ordered := sort.SliceIsSorted(rows, func(i, j int) bool { return stored(rows[i]) < stored(rows[j]) })
		s.that("a partition is in the order of its stored keys", ordered)
		for _, row := range rows {
			seen[stored(row)]++
		}
	}
	missing, twice := 0, 0
	for row := range want {
		if seen[stored(row)] == 0 {
			missing++
		}
	}
	for _, times := range seen {
		if times > 1 {
			twice++
		}
	}
	s.equal("rows missing in the whole table", missing, 0)
	s.equal("rows twice in the whole table", twice, 0)
}

// stored is the stored key of a row.
func stored(one row) string {
	return string([]byte{byte(len(one.hash) >> 8), byte(len(one.hash))}) + one.hash + one.sort
}

// closeScanners closes scanners in the middle. The request that says so has no answer: the client waits a tenth of
// a second and calls that an error. An answer would end the connection for good, so the rows after it matter.
func (s *suite) closeScanners() {
	hash := s.key("large scan")
	for round := 0; round < 3; round++ {
		ctx, cancel := within(operationTime)
		o := scanning(func(o *pegasus.ScannerOptions) { o.BatchSize = 10 })
		scanner, err := s.table.GetScanner(ctx, hash, nil, nil, o)
		if !s.noError("scanner to close", err) {
			cancel()
			return
		}
		for i := 0; i < 15; i++ {
			completed, _, sort, _, err := scanner.Next(ctx)
			s.noError("next before close", err)
			s.equal("next before close", fmt.Sprint(completed, string(sort)), fmt.Sprint(false, numbered(i)))
		}
		s.refused("close in the middle", scanner.Close(), overdue)
		_, _, _, _, err = scanner.Next(ctx)
		s.refused("next after close", err, "scanner is closed")
		cancel()
		s.get(hash, []byte(numbered(round)), []byte("value of "+numbered(round)))
	}
}
