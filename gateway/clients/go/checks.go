package main

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"sync"
)

// checks counts what was compared, and prints what differed. It may be used by many goroutines.
type checks struct {
	mutex  sync.Mutex
	part   string
	done   int
	failed int
}

// that checks a condition.
func (c *checks) that(what string, holds bool, details ...interface{}) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.done++
	if !holds {
		c.failed++
		fmt.Printf("DIFFERENT %s: %s: %s\n", c.part, what, fmt.Sprint(details...))
	}
	return holds
}

// noError checks that an operation succeeded.
func (c *checks) noError(what string, err error) bool {
	return c.that(what, err == nil, err)
}

// equal checks two values of any type.
func (c *checks) equal(what string, got, want interface{}) bool {
	return c.that(what, reflect.DeepEqual(got, want), "got ", got, ", want ", want)
}

// same checks two byte strings. Nothing and an empty string differ.
func (c *checks) same(what string, got, want []byte) bool {
	holds := bytes.Equal(got, want) && (got == nil) == (want == nil)
	return c.that(what, holds, "got ", shortened(got), ", want ", shortened(want))
}

// refused checks that an operation failed, with a text in its error.
func (c *checks) refused(what string, err error, text string) bool {
	if err == nil {
		return c.that(what, false, "succeeded, want ", text)
	}
	return c.that(what, strings.Contains(err.Error(), text), "got ", err, ", want ", text)
}

// finish prints the last line and returns the exit code.
func (c *checks) finish() int {
	if c.failed > 0 {
		fmt.Printf("failed: %d of %d checks\n", c.failed, c.done)
		return 1
	}
	fmt.Printf("ok: %d checks\n", c.done)
	return 0
}

// shortened is a byte string for people.
func shortened(data []byte) string {
	if data == nil {
		return "nothing"
	}
	if len(data) > 40 {
		return fmt.Sprintf("%q... of %d bytes", data[:40], len(data))
	}
	return fmt.Sprintf("%q", data)
}
