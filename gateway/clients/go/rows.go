package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/apache/incubator-pegasus/go-client/pegasus"
)

// operationTime is what one operation may take when nothing is wrong.
const operationTime = 10 * time.Second

// refusedTime is for operations that the server answers with an error of its own: this client repeats those until
// its time is over, and then says that the time is over. So the time is the price of the check.
const refusedTime = 1200 * time.Millisecond

// overdue is how the client names an operation whose context ended.
const overdue = "context deadline exceeded"

func (s *suite) set(hash, sort, value []byte) {
	ctx, cancel := within(operationTime)
	defer cancel()
	s.noError("set "+shortened(hash)+" "+shortened(sort), s.table.Set(ctx, hash, sort, value))
}

func (s *suite) setTTL(hash, sort, value []byte, ttl time.Duration) {
	ctx, cancel := within(operationTime)
	defer cancel()
	s.noError("set with ttl "+shortened(sort), s.table.SetTTL(ctx, hash, sort, value, ttl))
}

// get checks the value of a row; nothing means that there must be no row.
func (s *suite) get(hash, sort, want []byte) {
	ctx, cancel := within(operationTime)
	defer cancel()
	got, err := s.table.Get(ctx, hash, sort)
	what := "get " + shortened(hash) + " " + shortened(sort)
	if s.noError(what, err) {
		s.same(what, got, want)
	}
}

func (s *suite) del(hash, sort []byte) {
	ctx, cancel := within(operationTime)
	defer cancel()
	s.noError("del "+shortened(sort), s.table.Del(ctx, hash, sort))
}

func (s *suite) exist(hash, sort []byte, want bool) {
	ctx, cancel := within(operationTime)
	defer cancel()
	got, err := s.table.Exist(ctx, hash, sort)
	if s.noError("exist "+shortened(sort), err) {
		s.equal("exist "+shortened(sort), got, want)
	}
}

func (s *suite) ttlIs(hash, sort []byte, least, most int) {
	ctx, cancel := within(operationTime)
	defer cancel()
	got, err := s.table.TTL(ctx, hash, sort)
	if s.noError("ttl "+shortened(sort), err) {
		s.that("ttl "+shortened(sort), got >= least && got <= most, "got ", got, ", want ", least, "..", most)
	}
}

func (s *suite) count(hash []byte, want int64) {
	ctx, cancel := within(operationTime)
	defer cancel()
	got, err := s.table.SortKeyCount(ctx, hash)
	if s.noError("sortkey count "+shortened(hash), err) {
		s.equal("sortkey count "+shortened(hash), got, want)
	}
}

// rows checks the operations on one row.
func (s *suite) rows() {
	hash, sort := s.key("rows"), []byte("sort")
	s.get(hash, sort, nil)
	s.exist(hash, sort, false)
	s.ttlIs(hash, sort, -2, -2)
	s.count(hash, 0)
	s.set(hash, sort, []byte("one"))
	s.get(hash, sort, []byte("one"))
	s.exist(hash, sort, true)
	s.ttlIs(hash, sort, -1, -1)
	s.set(hash, sort, []byte("two"))
	s.get(hash, sort, []byte("two"))
	s.count(hash, 1)
	s.set(hash, []byte{}, []byte("the row with the empty sort key"))
	s.get(hash, []byte{}, []byte("the row with the empty sort key"))
	s.set(hash, []byte("empty value"), []byte{})
	s.get(hash, []byte("empty value"), []byte{})
	s.exist(hash, []byte("empty value"), true)
	s.count(hash, 3)
	s.del(hash, sort)
	s.del(hash, sort)
	s.get(hash, sort, nil)
	s.exist(hash, sort, false)
	s.count(hash, 2)
	for i, hash := range s.binaryKeys() {
		for j, sort := range [][]byte{{0}, {0xFF}, {0xFF, 0xFF, 0xFF}, {0, 0xFF, 0, 1}, []byte("\r\n\t \\x00'\"")} {
			value := bytes.Repeat([]byte{byte(i), 0, byte(j), 0xFF}, 9)
			s.set(hash, sort, value)
			s.get(hash, sort, value)
		}
		s.count(hash, 5)
	}
}

// binaryKeys are hash keys of all kinds of bytes.
func (s *suite) binaryKeys() [][]byte {
	tail := []byte(s.run)
	return [][]byte{
		append([]byte{0}, tail...), append([]byte{0xFF, 0xFF}, tail...), append(s.key(""), 0xFF, 0xFF),
		append(s.key(""), 0), append([]byte{0, 0, 0, 0}, append(tail, 0x80, 0x7F)...),
	}
}

// arguments checks what the client refuses by itself, so that a newer client that asks the server is noticed.
func (s *suite) arguments() {
	ctx, cancel := within(operationTime)
	defer cancel()
	hash, sort := s.key("arguments"), []byte("sort")
	_, err := s.table.Get(ctx, nil, sort)
	s.refused("get without hash key", err, "InvalidParameter: hashkey must not be nil")
	_, err = s.table.Get(ctx, []byte{}, sort)
	s.refused("get with empty hash key", err, "InvalidParameter: hashkey must not be empty")
	_, err = s.table.Get(ctx, hash, nil)
	s.refused("get without sort key", err, "InvalidParameter: sortkey must not be nil")
	s.refused("set without value", s.table.Set(ctx, hash, sort, nil), "InvalidParameter: value must not be nil")
	s.refused("negative ttl", s.table.SetTTL(ctx, hash, sort, []byte{}, -time.Second), "InvalidParameter: TTL")
	s.refused("multi set of nothing", s.table.MultiSet(ctx, hash, nil, nil), "InvalidParameter: sortkeys")
	s.refused("multi del of nothing", s.table.MultiDel(ctx, hash, nil), "InvalidParameter: sortkeys")
	err = s.table.MultiSet(ctx, hash, [][]byte{sort}, [][]byte{[]byte("1"), []byte("2")})
	s.refused("multi set of unequal lists", err, "InvalidParameter: unmatched key-value pairs")
	_, err = s.table.GetUnorderedScanners(ctx, 0, pegasus.NewScanOptions())
	s.refused("no unordered scanners", err, "invalid maxSplitCount: 0")
	_, err = s.table.BatchGet(ctx, nil)
	s.refused("batch get of nothing", err, "InvalidParameter: CompositeKeys must not be nil")
	s.count(hash, 0)
}

// sizes checks values that are large. Pegasus takes requests of up to 1 MiB.
func (s *suite) sizes() {
	hash := s.key("sizes")
	for _, length := range []int{1, 4095, 4096, 65535, 65536, 300 << 10, 900 << 10} {
		sort, value := []byte(fmt.Sprint("size ", length)), filled(length)
		s.set(hash, sort, value)
		s.get(hash, sort, value)
	}
	long := bytes.Repeat([]byte("k"), 1000)
	s.set(append(s.key("long"), long[:900]...), long, []byte("value"))
	s.get(append(s.key("long"), long[:900]...), long, []byte("value"))
	s.count(hash, 7)
}

// tooLarge sets values that no server takes. The connection must live on: this client does not dial a node twice
// within a minute.
func (s *suite) tooLarge() {
	hash := s.key("too large")
	for _, length := range []int{1200 << 10, 2 << 20, 5 << 20} {
		ctx, cancel := within(refusedTime)
		s.refused(fmt.Sprint("set of ", length), s.table.Set(ctx, hash, []byte("sort"), filled(length)), overdue)
		cancel()
		s.get(hash, []byte("sort"), nil)
	}
	s.count(hash, 0)
}

// filled is a value of a length, whose bytes are not all equal.
func filled(length int) []byte {
	value := make([]byte, length)
	for i := range value {
		value[i] = byte(i*7 + i>>8)
	}
	return value
}

// batchGet checks gets of many hash keys at once. This client makes one request of each.
func (s *suite) batchGet() {
	var keys []pegasus.CompositeKey
	var want [][]byte
	for i := 0; i < 40; i++ {
		hash, sort, value := s.key(fmt.Sprint("batch", i)), []byte(fmt.Sprint(i)), []byte(fmt.Sprint("value ", i))
		keys = append(keys, pegasus.CompositeKey{HashKey: hash, SortKey: sort})
		if i%3 == 0 {
			want = append(want, nil)
			continue
		}
		s.set(hash, sort, value)
		want = append(want, value)
	}
	ctx, cancel := within(operationTime)
	defer cancel()
	got, err := s.table.BatchGet(ctx, keys)
	if s.noError("batch get", err) && s.equal("values of batch get", len(got), len(want)) {
		for i := range want {
			s.same(fmt.Sprint("value ", i, " of batch get"), got[i], want[i])
		}
	}
}

// concurrent has many requests under way on each connection, and gets the answers in whatever order they come.
func (s *suite) concurrent() {
	const workers, rounds = 64, 30
	var wait sync.WaitGroup
	for worker := 0; worker < workers; worker++ {
		wait.Add(1)
		go func(worker int) {
			defer wait.Done()
			hash := s.key(fmt.Sprint("concurrent", worker))
			for round := 0; round < rounds; round++ {
				sort, value := []byte(fmt.Sprint(round)), filled(1+worker*97+round*131)
				s.set(hash, sort, value)
				s.get(hash, sort, value)
				s.incrWithoutDeadline(hash, []byte("sum"), int64(round))
			}
			s.get(hash, []byte("sum"), []byte(fmt.Sprint(rounds*(rounds-1)/2)))
			s.count(hash, rounds+1)
		}(worker)
	}
	wait.Wait()
}

// incrWithoutDeadline adds to a row under a context without a deadline. The time that this client then writes into
// its request is no time at all; a server must not go by it.
func (s *suite) incrWithoutDeadline(hash, sort []byte, add int64) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	timer := time.AfterFunc(operationTime, cancel)
	defer timer.Stop()
	_, err := s.table.Incr(ctx, hash, sort, add)
	s.noError("incr without deadline", err)
}
