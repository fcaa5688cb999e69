package main

import (
	"fmt"
	"time"

	"github.com/apache/incubator-pegasus/go-client/pegasus"
)

// increments checks incr.
func (s *suite) increments() {
	hash := s.key("incr")
	incr := func(sort string, add, want int64) {
		ctx, cancel := within(operationTime)
		defer cancel()
		got, err := s.table.Incr(ctx, hash, []byte(sort), add)
		if s.noError("incr "+sort, err) {
			s.equal("incr "+sort, got, want)
		}
	}
	incr("new", 5, 5)
	incr("new", 0, 5)
	incr("new", -7, -2)
	s.get(hash, []byte("new"), []byte("-2"))
	s.set(hash, []byte("empty"), []byte{})
	incr("empty", 3, 3)
	s.set(hash, []byte("text"), []byte("9223372036854775806"))
	incr("text", 1, 9223372036854775807)
	for sort, value := range map[string]string{"overflow": "9223372036854775807", "word": "abc", "tail": "12x"} {
		s.set(hash, []byte(sort), []byte(value))
		ctx, cancel := within(refusedTime)
		_, err := s.table.Incr(ctx, hash, []byte(sort), 1)
		cancel()
		s.refused("incr of "+value, err, overdue)
		s.get(hash, []byte(sort), []byte(value))
	}
	s.setTTL(hash, []byte("ttl"), []byte("41"), 100*time.Second)
	incr("ttl", 1, 42)
	s.ttlIs(hash, []byte("ttl"), 90, 100)
}

// checkAndSet checks every kind of check, with and without the value returned.
func (s *suite) checkAndSet() {
	none := "<none>"
	cases := []struct {
		kind           pegasus.CheckType
		value, operand string
		want           bool
	}{
		{pegasus.CheckTypeNoCheck, none, "", true}, {pegasus.CheckTypeNoCheck, "v", "", true},
		{pegasus.CheckTypeValueNotExist, none, "", true}, {pegasus.CheckTypeValueNotExist, "", "", false},
		{pegasus.CheckTypeValueNotExistOrEmpty, none, "", true}, {pegasus.CheckTypeValueNotExistOrEmpty, "", "", true},
		{pegasus.CheckTypeValueNotExistOrEmpty, "v", "", false},
		{pegasus.CheckTypeValueExist, none, "", false}, {pegasus.CheckTypeValueExist, "", "", true},
		{pegasus.CheckTypeValueNotEmpty, "", "", false}, {pegasus.CheckTypeValueNotEmpty, "v", "", true},
		{pegasus.CheckTypeMatchAnywhere, "abcd", "bc", true}, {pegasus.CheckTypeMatchAnywhere, "abcd", "cb", false},
		{pegasus.CheckTypeMatchAnywhere, none, "", false}, {pegasus.CheckTypeMatchAnywhere, "", "", true},
		{pegasus.CheckTypeMatchPrefix, "abcd", "ab", true}, {pegasus.CheckTypeMatchPrefix, "abcd", "bc", false},
		{pegasus.CheckTypeMatchPostfix, "abcd", "cd", true}, {pegasus.CheckTypeMatchPostfix, "abcd", "bc", false},
		{pegasus.CheckTypeBytesLess, "a", "b", true}, {pegasus.CheckTypeBytesLess, "b", "b", false},
		{pegasus.CheckTypeBytesLess, none, "b", false}, {pegasus.CheckTypeBytesLess, "a", "\xff", true},
		{pegasus.CheckTypeBytesLessOrEqual, "b", "b", true}, {pegasus.CheckTypeBytesLessOrEqual, "ba", "b", false},
		{pegasus.CheckTypeBytesEqual, "b", "b", true}, {pegasus.CheckTypeBytesEqual, "b", "ba", false},
		{pegasus.CheckTypeBytesGreaterOrEqual, "b", "b", true}, {pegasus.CheckTypeBytesGreaterOrEqual, "a", "b", false},
		{pegasus.CheckTypeBytesGreater, "10", "9", false}, {pegasus.CheckTypeBytesGreater, "ba", "b", true},
		{pegasus.CheckTypeIntLess, "9", "10", true}, {pegasus.CheckTypeIntLess, "10", "10", false},
		{pegasus.CheckTypeIntLess, "-10", "-9", true}, {pegasus.CheckTypeIntLess, none, "10", false},
		{pegasus.CheckTypeIntLessOrEqual, "10", "10", true}, {pegasus.CheckTypeIntEqual, "10", "10", true},
		{pegasus.CheckTypeIntEqual, "10", "11", false}, {pegasus.CheckTypeIntGreaterOrEqual, "10", "9", true},
		// This client sends the byte comparison when it is asked for "int, greater".
		{pegasus.CheckTypeIntGreater, "10", "9", false}, {pegasus.CheckTypeIntGreater, "91", "9", true},
	}
	for i, one := range cases {
		hash, sort := s.key("cas"), []byte(fmt.Sprint("case ", i))
		var before []byte
		if one.value != none {
			before = []byte(one.value)
			s.set(hash, sort, before)
		}
		what := fmt.Sprintf("check %d of %q with %q", one.kind, one.value, one.operand)
		s.check(what, hash, sort, one.kind, one.operand, before, one.want, i%2 == 0)
	}
	s.checkElsewhere()
}

// check makes one check-and-set on one row, and looks at the row after it.
func (s *suite) check(what string, hash, sort []byte, kind pegasus.CheckType, operand string, before []byte,
	want, returned bool) {
	ctx, cancel := within(operationTime)
	defer cancel()
	o := &pegasus.CheckAndSetOptions{ReturnCheckValue: returned}
	got, err := s.table.CheckAndSet(ctx, hash, sort, kind, []byte(operand), sort, []byte("set"), o)
	if !s.noError(what, err) {
		return
	}
	// The client makes no difference between an empty value and none, but for CheckValueExist.
	expected := pegasus.CheckAndSetResult{SetSucceed: want, CheckValueReturned: returned}
	if returned && before != nil {
		expected.CheckValueExist = true
		if len(before) > 0 {
			expected.CheckValue = before
		}
	}
	s.equal(what, fmt.Sprintf("%+v", *got), fmt.Sprintf("%+v", expected))
	after := before
	if want {
		after = []byte("set")
	}
	s.get(hash, sort, after)
}

// checkElsewhere checks one row and sets another, sets a ttl, and compares what is not a number.
func (s *suite) checkElsewhere() {
	hash, lock, data := s.key("cas elsewhere"), []byte("lock"), []byte("data")
	s.set(hash, lock, []byte("mine"))
	ctx, cancel := within(operationTime)
	defer cancel()
	o := &pegasus.CheckAndSetOptions{SetValueTTLSeconds: 100, ReturnCheckValue: true}
	equal := pegasus.CheckTypeBytesEqual
	got, err := s.table.CheckAndSet(ctx, hash, lock, equal, []byte("mine"), data, []byte("1"), o)
	if s.noError("check elsewhere", err) {
		s.equal("check elsewhere", got.SetSucceed, true)
		s.same("value checked elsewhere", got.CheckValue, []byte("mine"))
	}
	s.get(hash, data, []byte("1"))
	s.get(hash, lock, []byte("mine"))
	s.ttlIs(hash, data, 90, 100)
	s.ttlIs(hash, lock, -1, -1)
	got, err = s.table.CheckAndSet(ctx, hash, lock, equal, []byte("yours"), data, []byte("2"), nil)
	if s.noError("failed check elsewhere", err) {
		s.equal("failed check elsewhere", *got, pegasus.CheckAndSetResult{})
	}
	s.get(hash, data, []byte("1"))
	short, done := within(refusedTime)
	defer done()
	_, err = s.table.CheckAndSet(short, hash, lock, pegasus.CheckTypeIntEqual, []byte("1"), data, []byte("3"), nil)
	s.refused("int comparison of a word", err, overdue)
	s.get(hash, data, []byte("1"))
}

// ttl sees rows end.
func (s *suite) ttl() {
	hash, ends, stays := s.key("ttl"), []byte("ends"), []byte("stays")
	s.setTTL(hash, ends, []byte("v"), 3*time.Second)
	s.get(hash, ends, []byte("v"))
	s.ttlIs(hash, ends, 1, 3)
	s.setTTL(hash, stays, []byte("v"), 1000*time.Second)
	s.ttlIs(hash, stays, 990, 1000)
	s.set(hash, stays, []byte("v"))
	s.ttlIs(hash, stays, -1, -1)
	ctx, cancel := within(operationTime)
	defer cancel()
	keys, values := texts("m1", "m2", "m3"), texts("1", "2", "3")
	s.noError("multi set with ttl", s.table.MultiSetOpt(ctx, hash, keys, values, 3*time.Second))
	s.ttlIs(hash, []byte("m2"), 1, 3)
	s.count(hash, 5)
	for _, sort := range []string{"ends", "m1", "m2", "m3"} {
		s.ended(hash, []byte(sort))
	}
	s.get(hash, ends, nil)
	s.exist(hash, ends, false)
	s.ttlIs(hash, ends, -2, -2)
	s.get(hash, stays, []byte("v"))
	s.count(hash, 1)
	rows, all, err := s.table.MultiGet(ctx, hash, nil)
	s.noError("multi get of ended rows", err)
	s.equal("multi get of ended rows", sortKeys(rows), "stays")
	s.equal("all fetched", all, true)
	got, err := s.table.Incr(ctx, hash, []byte("m1"), 7)
	if s.noError("incr of an ended row", err) {
		s.equal("incr of an ended row", got, int64(7))
	}
	s.ttlIs(hash, []byte("m1"), -1, -1)
}

// ended waits until a row is gone, by asking for it.
func (s *suite) ended(hash, sort []byte) {
	deadline := time.Now().Add(operationTime)
	for time.Now().Before(deadline) {
		ctx, cancel := within(operationTime)
		value, err := s.table.Get(ctx, hash, sort)
		cancel()
		if err != nil {
			s.noError("get of an ending row", err)
			return
		}
		if value == nil {
			s.that("row ended", true)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.that("row ended", false, string(sort), " is there after ", operationTime)
}
