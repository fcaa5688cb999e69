package main

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/incubator-pegasus/go-client/pegasus"
)

// recoveryTime is how long the client that lived through the failure may take until it works for every key again.
// It does not dial a node twice within a minute, so the time has to be longer than that.
const recoveryTime = 90 * time.Second

// report is the line that the failover mode prints.
type report struct {
	// Operations that ended in time, with their outcomes.
	Operations int            `json:"operations"`
	Successes  int            `json:"successes"`
	Errors     map[string]int `json:"errors"`
	// LongestGapMs is the longest time in which nobody succeeded, LongestWorkerGapMs that of one goroutine.
	LongestGapMs       int64 `json:"longest_gap_ms"`
	LongestWorkerGapMs int64 `json:"longest_worker_gap_ms"`
	// RecoveryMs is the time after the load until the same client had read all keys again.
	RecoveryMs  int64    `json:"recovery_ms"`
	Unrecovered int      `json:"unrecovered"`
	TotalMs     int64    `json:"total_ms"`
	Wrong       []string `json:"wrong"`
}

// load is what the goroutines share.
type load struct {
	settings
	table  pegasus.TableConnector
	ends   time.Time
	mutex  sync.Mutex
	report report
	last   time.Time
}

// worker is one goroutine: it alone writes its two rows, so it knows what may be in them.
type worker struct {
	*load
	hash []byte
	last time.Time
	gap  time.Duration
	// The value of one row: the last number known to be there, and the highest that may be.
	known, tried int
	// The other row: the highest sum seen, increments that were acknowledged, and those that may have happened.
	sum, added, unknown int64
}

var (
	setRow  = []byte("value")
	incrRow = []byte("sum")
)

// failover loads the table and checks that no acknowledged write is lost and none is made twice.
func failover(args settings) int {
	client := pegasus.NewClient(pegasus.Config{MetaServers: []string{args.meta}})
	ctx, cancel := within(20 * time.Second)
	table, err := client.OpenTable(ctx, args.tableName)
	cancel()
	if err != nil {
		fmt.Println("open table:", err)
		return 1
	}
	started := time.Now()
	l := &load{settings: args, table: table, last: started}
	l.ends = started.Add(time.Duration(args.seconds) * time.Second)
	l.report.Errors, l.report.Wrong = map[string]int{}, []string{}
	run := newRun()
	workers := make([]*worker, args.workers)
	l.all(workers, func(i int) {
		workers[i] = &worker{load: l, hash: []byte(fmt.Sprint(run, i)), last: started}
		workers[i].run()
	})
	l.gap(time.Now())
	loaded := time.Now()
	l.all(workers, func(i int) { workers[i].recover() })
	l.report.RecoveryMs = time.Since(loaded).Milliseconds()
	client.Close()
	l.verify(workers)
	for _, w := range workers {
		if gap := w.gap.Milliseconds(); gap > l.report.LongestWorkerGapMs {
			l.report.LongestWorkerGapMs = gap
		}
	}
	l.report.TotalMs = time.Since(started).Milliseconds()
	line, err := json.Marshal(l.report)
	if err != nil {
		fmt.Println("report:", err)
		return 1
	}
	fmt.Println(string(line))
	if len(l.report.Wrong) > 0 || l.report.Unrecovered > 0 || l.report.Successes == 0 {
		return 1
	}
	return 0
}

// all runs something for each worker at once and waits.
func (l *load) all(workers []*worker, run func(int)) {
	var wait sync.WaitGroup
	for i := range workers {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			run(i)
		}(i)
	}
	wait.Wait()
}

// gap ends the time without a success. The mutex is held, or nobody else is there.
func (l *load) gap(now time.Time) {
	if gap := now.Sub(l.last).Milliseconds(); gap > l.report.LongestGapMs {
		l.report.LongestGapMs = gap
	}
	l.last = now
}

// wrong keeps what should not be.
func (l *load) wrong(format string, args ...interface{}) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if len(l.report.Wrong) < 20 {
		l.report.Wrong = append(l.report.Wrong, fmt.Sprintf(format, args...))
	}
}

// measured makes one operation and keeps its outcome.
func (w *worker) measured(operation func(context.Context) error) bool {
	ctx, cancel := within(w.deadline)
	err := operation(ctx)
	cancel()
	now := time.Now()
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.report.Operations++
	if err != nil {
		w.report.Errors[plain(err)]++
		return false
	}
	w.report.Successes++
	w.load.gap(now)
	if gap := now.Sub(w.last); gap > w.gap {
		w.gap = gap
	}
	w.last = now
	return true
}

// plain is an error's text without the numbers and addresses that make each one different.
func plain(err error) string {
	text := err.Error()
	if at := strings.Index(text, " [{Appid"); at > 0 {
		text = text[:at]
	}
	return numbers.ReplaceAllString(text, "N")
}

var numbers = regexp.MustCompile(`[0-9]+(\.[0-9]+)*(:[0-9]+)?`)

// run writes, reads and adds until the time is over.
func (w *worker) run() {
	for time.Now().Before(w.ends) {
		w.tried++
		value := w.tried
		if w.measured(func(ctx context.Context) error {
			return w.table.Set(ctx, w.hash, setRow, []byte(strconv.Itoa(value)))
		}) {
			w.known = value
		}
		w.read()
		w.add()
	}
	if gap := time.Since(w.last); gap > w.gap {
		w.gap = gap
	}
}

// add increments the other row by one. A sum is more than all sums before it, and never more than was asked for.
func (w *worker) add() {
	var sum int64
	if !w.measured(func(ctx context.Context) (err error) {
		sum, err = w.table.Incr(ctx, w.hash, incrRow, 1)
		return err
	}) {
		w.unknown++
		return
	}
	w.added++
	if sum <= w.sum || sum > w.added+w.unknown {
		w.wrong("%s: incr gave %d after %d; %d acknowledged, %d unknown", w.hash, sum, w.sum, w.added, w.unknown)
	}
	w.sum = sum
}

// read looks at the row that is set. What was read once must not be older the next time.
func (w *worker) read() {
	var got []byte
	if w.measured(func(ctx context.Context) (err error) {
		got, err = w.table.Get(ctx, w.hash, setRow)
		return err
	}) {
		w.known = w.acceptable(got)
	}
}

// acceptable checks a value that was read, and returns its number.
func (w *worker) acceptable(got []byte) int {
	number := 0
	if got != nil {
		parsed, err := strconv.Atoi(string(got))
		if err != nil {
			w.wrong("%s: read %q", w.hash, got)
			return w.known
		}
		number = parsed
	}
	if number < w.known || number > w.tried {
		w.wrong("%s: read %d, while %d was acknowledged or seen and %d tried", w.hash, number, w.known, w.tried)
		return w.known
	}
	return number
}

// recover waits until the client that lived through the failure reads this worker's row.
func (w *worker) recover() {
	deadline := time.Now().Add(recoveryTime)
	for time.Now().Before(deadline) {
		ctx, cancel := within(2 * time.Second)
		got, err := w.table.Get(ctx, w.hash, setRow)
		cancel()
		if err == nil {
			w.known = w.acceptable(got)
			return
		}
	}
	w.mutex.Lock()
	w.report.Unrecovered++
	w.mutex.Unlock()
}

// verify reads everything with a new client, which knows nothing of old connections.
func (l *load) verify(workers []*worker) {
	client := pegasus.NewClient(pegasus.Config{MetaServers: []string{l.meta}})
	defer client.Close()
	ctx, cancel := within(recoveryTime)
	defer cancel()
	table, err := client.OpenTable(ctx, l.tableName)
	if err != nil {
		l.wrong("open to verify: %s", err)
		return
	}
	for _, w := range workers {
		value, err := table.Get(ctx, w.hash, setRow)
		if err != nil {
			l.wrong("%s: read to verify: %s", w.hash, err)
			continue
		}
		w.acceptable(value)
		text, err := table.Get(ctx, w.hash, incrRow)
		sum, parseError := int64(0), error(nil)
		if text != nil {
			sum, parseError = strconv.ParseInt(string(text), 10, 64)
		}
		if err != nil || parseError != nil || sum < w.sum || sum > w.added+w.unknown {
			l.wrong("%s: sum %q (%v), want %d to %d", w.hash, text, err, w.sum, w.added+w.unknown)
		}
	}
}
