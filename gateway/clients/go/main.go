// Command client runs Apache Pegasus's own Go client, unmodified, against a cluster and checks every answer.
//
// Modes: basic (every operation of the client), admin (tables and nodes through the meta service), failover (load
// while somebody else kills a node). The last line of basic and admin is `ok: N checks`; failover prints one line
// of JSON. The exit code is 0 only if everything was as it should be.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/apache/incubator-pegasus/go-client/pegalog"
	"github.com/apache/incubator-pegasus/go-client/pegasus"
)

// settings are the arguments of the program.
type settings struct {
	meta      string
	tableName string
	log       string
	seconds   int
	workers   int
	deadline  time.Duration
}

func main() {
	var s settings
	flag.StringVar(&s.meta, "meta", "127.0.0.1:34601", "address of the meta service")
	flag.StringVar(&s.tableName, "table", "temp", "name of a table that exists")
	flag.StringVar(&s.log, "log", "", "file for the log of the client; empty: no log")
	flag.IntVar(&s.seconds, "seconds", 30, "failover: how long to load, in seconds")
	flag.IntVar(&s.workers, "workers", 16, "failover: goroutines, each with its own keys")
	flag.DurationVar(&s.deadline, "deadline", 10*time.Second, "failover: time of one operation")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: client [options] basic|admin|failover")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 || s.seconds < 1 || s.workers < 1 || s.deadline <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := openLog(s.log); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	switch flag.Arg(0) {
	case "basic":
		os.Exit(basic(s))
	case "admin":
		os.Exit(adminMode(s))
	case "failover":
		os.Exit(failover(s))
	default:
		flag.Usage()
		os.Exit(2)
	}
}

// openLog sends the log of the client to a file. Left alone, the client writes `pegasus.log` where it is started.
func openLog(path string) error {
	out, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if path != "" {
		out, err = os.Create(path)
	}
	if err != nil {
		return err
	}
	pegalog.SetLogger(log.New(out, "", log.LstdFlags|log.Lmicroseconds))
	return nil
}

// suite is what the checks of the basic mode share.
type suite struct {
	*checks
	settings
	client pegasus.Client
	table  pegasus.TableConnector
	// run is drawn anew for each run, so that runs on one table do not meet. All hash keys begin with it.
	run string
}

// key makes a hash key of this run.
func (s *suite) key(name string) []byte {
	return []byte(s.run + name)
}

func basic(args settings) int {
	s := &suite{checks: &checks{}, settings: args, run: newRun()}
	s.client = pegasus.NewClient(pegasus.Config{MetaServers: []string{args.meta}})
	ctx, cancel := within(20 * time.Second)
	defer cancel()
	table, err := s.client.OpenTable(ctx, args.tableName)
	if err != nil {
		fmt.Println("open table:", err)
		return 1
	}
	s.table = table
	parts := []struct {
		name string
		run  func()
	}{
		{"rows", s.rows}, {"arguments", s.arguments}, {"sizes", s.sizes}, {"multi set and get", s.multi},
		{"multi get ranges", s.ranges}, {"limits", s.limits}, {"incr", s.increments},
		{"check and set", s.checkAndSet}, {"batch get", s.batchGet}, {"ttl", s.ttl},
		{"concurrent", s.concurrent}, {"hash scanners", s.hashScanners}, {"filters of scanners", s.scanFilters},
		{"unordered scanners", s.unorderedScanners}, {"closing scanners", s.closeScanners},
		{"routes", s.routes}, {"below the client", s.below}, {"no such table", s.noTable},
		{"too large", s.tooLarge},
	}
	for _, part := range parts {
		s.part = part.name
		before, started := s.done, time.Now()
		part.run()
		fmt.Printf("%-20s %4d checks %6d ms\n", part.name, s.done-before, time.Since(started).Milliseconds())
	}
	s.part = "close"
	s.noError("close of the client", s.client.Close())
	return s.finish()
}

// newRun draws the prefix of the hash keys of one run.
func newRun() string {
	var bytes [6]byte
	if _, err := rand.Read(bytes[:]); err != nil {
		panic(err)
	}
	return "go-" + hex.EncodeToString(bytes[:]) + "-"
}

// within is a context that ends after a time.
func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
