package main

import (
	"fmt"
	"strings"

	"github.com/apache/incubator-pegasus/go-client/pegasus"
)

// options are those of a multi get, with everything allowed.
func options(change func(*pegasus.MultiGetOptions)) *pegasus.MultiGetOptions {
	o := &pegasus.MultiGetOptions{StartInclusive: true, MaxFetchCount: -1, MaxFetchSize: -1}
	change(o)
	return o
}

func unchanged(*pegasus.MultiGetOptions) {}

// texts turns strings into byte strings.
func texts(all ...string) [][]byte {
	out := make([][]byte, len(all))
	for i, text := range all {
		out[i] = []byte(text)
	}
	return out
}

// sortKeys is what a multi get answered, without the values.
func sortKeys(rows []*pegasus.KeyValue) string {
	keys := make([]string, len(rows))
	for i, row := range rows {
		keys[i] = string(row.SortKey)
	}
	return strings.Join(keys, " ")
}

// answered checks the sort keys of an answer, in their order, whether all was fetched, and that each value belongs
// to its key: rows of these checks have `value of KEY`.
func (s *suite) answered(what string, rows []*pegasus.KeyValue, all bool, err error, want string,
	wantAll, values bool) {
	if !s.noError(what, err) {
		return
	}
	s.equal(what, sortKeys(rows), want)
	s.equal(what+": all fetched", all, wantAll)
	for _, row := range rows {
		value := ""
		if values {
			value = "value of " + string(row.SortKey)
		}
		s.equal(what+": value of "+string(row.SortKey), string(row.Value), value)
	}
}

// fill sets rows with one multi set.
func (s *suite) fill(hash []byte, keys ...string) {
	values := make([]string, len(keys))
	for i, key := range keys {
		values[i] = "value of " + key
	}
	ctx, cancel := within(operationTime)
	defer cancel()
	s.noError("multi set", s.table.MultiSet(ctx, hash, texts(keys...), texts(values...)))
}

// multi checks multi set, multi get by keys and multi del.
func (s *suite) multi() {
	hash := s.key("multi")
	ctx, cancel := within(operationTime)
	defer cancel()
	rows, all, err := s.table.MultiGet(ctx, hash, nil)
	s.answered("multi get of nothing", rows, all, err, "", true, true)
	s.fill(hash, "a", "b", "c", "d", "e")
	s.count(hash, 5)
	s.get(hash, []byte("c"), []byte("value of c"))
	rows, all, err = s.table.MultiGet(ctx, hash, texts("a", "c", "e"))
	s.answered("multi get by keys", rows, all, err, "a c e", true, true)
	rows, all, err = s.table.MultiGet(ctx, hash, texts("a", "b", "missing", "d"))
	s.answered("multi get with a missing key", rows, all, err, "a b d", true, true)
	rows, all, err = s.table.MultiGet(ctx, hash, texts("e", "a", "c"))
	s.answered("multi get in the order asked", rows, all, err, "e a c", true, true)
	rows, all, err = s.table.MultiGet(ctx, hash, texts("x", "y"))
	s.answered("multi get of missing keys", rows, all, err, "", true, true)
	rows, all, err = s.table.MultiGet(ctx, hash, nil)
	s.answered("multi get of all", rows, all, err, "a b c d e", true, true)
	rows, all, err = s.table.MultiGetOpt(ctx, hash, nil, options(func(o *pegasus.MultiGetOptions) { o.NoValue = true }))
	s.answered("multi get of sort keys", rows, all, err, "a b c d e", true, false)
	noValue := options(func(o *pegasus.MultiGetOptions) { o.NoValue = true })
	rows, all, err = s.table.MultiGetOpt(ctx, hash, texts("b", "c"), noValue)
	s.answered("multi get by keys, no values", rows, all, err, "b c", true, false)
	s.noError("multi del", s.table.MultiDel(ctx, hash, texts("a", "b", "missing")))
	s.count(hash, 3)
	rows, all, err = s.table.MultiGet(ctx, hash, texts("a", "b", "c"))
	s.answered("multi get after multi del", rows, all, err, "c", true, true)
	s.fill(hash, "c", "f")
	s.noError("multi set over a row", s.table.MultiSet(ctx, hash, texts("c", ""), texts("value of c", "value of ")))
	rows, all, err = s.table.MultiGet(ctx, hash, nil)
	s.answered("multi get with the empty sort key", rows, all, err, " c d e f", true, true)
	s.noError("multi del of all", s.table.MultiDel(ctx, hash, texts("", "c", "d", "e", "f")))
	s.count(hash, 0)
}

// ranges checks multi get by ranges, filters and backwards.
func (s *suite) ranges() {
	hash := s.key("ranges")
	s.fill(hash, "a", "ab", "abc", "b", "ba", "bab", "c", "ca", "d")
	const everything = "a ab abc b ba bab c ca d"
	filter := func(kind pegasus.FilterType, pattern string) func(*pegasus.MultiGetOptions) {
		return func(o *pegasus.MultiGetOptions) {
			o.SortKeyFilter = pegasus.Filter{Type: kind, Pattern: []byte(pattern)}
		}
	}
	inclusive := func(start, stop bool) func(*pegasus.MultiGetOptions) {
		return func(o *pegasus.MultiGetOptions) { o.StartInclusive, o.StopInclusive = start, stop }
	}
	cases := []struct {
		name, start, stop string
		change            func(*pegasus.MultiGetOptions)
		want              string
	}{
		{"all", "", "", unchanged, everything},
		{"from", "b", "", unchanged, "b ba bab c ca d"},
		{"from, exclusive", "b", "", inclusive(false, false), "ba bab c ca d"},
		{"to", "", "b", unchanged, "a ab abc"},
		{"to, inclusive", "", "b", inclusive(true, true), "a ab abc b"},
		{"between", "ab", "c", unchanged, "ab abc b ba bab"},
		{"between, both", "ab", "c", inclusive(true, true), "ab abc b ba bab c"},
		{"between, neither", "ab", "c", inclusive(false, false), "abc b ba bab"},
		{"between missing keys", "aa", "bb", unchanged, "ab abc b ba bab"},
		{"one key", "c", "c", inclusive(true, true), "c"},
		{"empty range", "c", "c", unchanged, ""},
		{"reversed range", "d", "a", unchanged, ""},
		{"prefix", "", "", filter(pegasus.FilterTypeMatchPrefix, "ab"), "ab abc"},
		{"postfix", "", "", filter(pegasus.FilterTypeMatchPostfix, "a"), "a ba ca"},
		{"anywhere", "", "", filter(pegasus.FilterTypeMatchAnywhere, "ab"), "ab abc bab"},
		{"empty pattern", "", "", filter(pegasus.FilterTypeMatchPrefix, ""), everything},
		{"prefix in a range", "abc", "", filter(pegasus.FilterTypeMatchPrefix, "a"), "abc"},
		{"prefix outside of the range", "b", "", filter(pegasus.FilterTypeMatchPrefix, "a"), ""},
		{"nothing matches", "", "", filter(pegasus.FilterTypeMatchAnywhere, "xyz"), ""},
	}
	for _, one := range cases {
		for _, reverse := range []bool{false, true} {
			for _, noValue := range []bool{false, true} {
				o := options(one.change)
				o.Reverse, o.NoValue = reverse, noValue
				ctx, cancel := within(operationTime)
				rows, all, err := s.table.MultiGetRangeOpt(ctx, hash, []byte(one.start), []byte(one.stop), o)
				cancel()
				what := fmt.Sprintf("%s, reverse %v, no value %v", one.name, reverse, noValue)
				s.answered(what, rows, all, err, one.want, true, !noValue)
			}
		}
	}
	ctx, cancel := within(operationTime)
	defer cancel()
	rows, all, err := s.table.MultiGetRange(ctx, hash, []byte("b"), []byte("c"))
	s.answered("range with the client's own options", rows, all, err, "b ba bab", true, true)
}

// limits checks that answers end where the caller's limits are, and go on after the last key.
func (s *suite) limits() {
	hash := s.key("limits")
	s.fill(hash, "a", "b", "c", "d", "e")
	ctx, cancel := within(operationTime)
	defer cancel()
	count := func(count int, reverse bool) *pegasus.MultiGetOptions {
		return options(func(o *pegasus.MultiGetOptions) { o.MaxFetchCount, o.Reverse = count, reverse })
	}
	rows, all, err := s.table.MultiGetRangeOpt(ctx, hash, nil, nil, count(2, false))
	s.answered("first two", rows, all, err, "a b", false, true)
	rows, all, err = s.table.MultiGetRangeOpt(ctx, hash, nil, nil, count(2, true))
	s.answered("last two", rows, all, err, "d e", false, true)
	rows, all, err = s.table.MultiGetRangeOpt(ctx, hash, nil, nil, count(6, false))
	s.answered("more than there are", rows, all, err, "a b c d e", true, true)
	rows, all, err = s.table.MultiGetOpt(ctx, hash, texts("e", "missing", "c", "a"), count(2, false))
	s.answered("two of the keys", rows, all, err, "e c", false, true)
	// Each row counts one byte of its key and ten of its value; an answer ends once it has reached the limit.
	size := options(func(o *pegasus.MultiGetOptions) { o.MaxFetchSize = 25 })
	rows, all, err = s.table.MultiGetRangeOpt(ctx, hash, nil, nil, size)
	s.answered("by size", rows, all, err, "a b c", false, true)
	rows, all, err = s.table.MultiGetOpt(ctx, hash, texts("a", "b", "c", "d"), size)
	s.answered("keys by size", rows, all, err, "a b c", false, true)
	s.manyRows()
	s.largeRows()
}

// manyRows reads more rows than one answer has by default, and all of them in steps.
func (s *suite) manyRows() {
	const total = 4000
	hash := s.key("many")
	for first := 0; first < total; first += 500 {
		var keys []string
		for i := first; i < first+500; i++ {
			keys = append(keys, fmt.Sprintf("%05d", i))
		}
		s.fill(hash, keys...)
	}
	s.count(hash, total)
	ctx, cancel := within(operationTime)
	defer cancel()
	rows, all, err := s.table.MultiGet(ctx, hash, nil)
	s.noError("multi get of 4,000 rows", err)
	s.equal("rows of the first answer", len(rows), 100)
	s.equal("all fetched", all, false)
	s.steps(hash, total, options(unchanged))
}

// largeRows reads rows that do not fit into one answer of some servers.
func (s *suite) largeRows() {
	hash := s.key("large")
	for i := 0; i < 6; i++ {
		s.set(hash, []byte(fmt.Sprintf("%05d", i)), filled(300<<10))
	}
	s.steps(hash, 6, options(unchanged))
}

// steps reads all rows of a hash key, whose sort keys are numbers, with as many requests as it needs.
func (s *suite) steps(hash []byte, total int, o *pegasus.MultiGetOptions) {
	next, requests := 0, 0
	for all := false; !all && requests < total; requests++ {
		o.StartInclusive = next == 0
		var start []byte
		if next > 0 {
			start = []byte(fmt.Sprintf("%05d", next-1))
		}
		ctx, cancel := within(operationTime)
		rows, fetched, err := s.table.MultiGetRangeOpt(ctx, hash, start, nil, o)
		cancel()
		if !s.noError("multi get in steps", err) {
			return
		}
		for _, row := range rows {
			if string(row.SortKey) != fmt.Sprintf("%05d", next) {
				s.equal("next sort key", string(row.SortKey), fmt.Sprintf("%05d", next))
				return
			}
			next++
		}
		all = fetched
	}
	s.equal("rows in steps", next, total)
	fmt.Printf("%-20s %4d rows of %s in %d requests\n", "", total, hash[len(s.run):], requests)
}
