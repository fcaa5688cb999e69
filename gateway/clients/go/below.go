package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"strings"
	"time"

	"github.com/apache/incubator-pegasus/go-client/idl/base"
	"github.com/apache/incubator-pegasus/go-client/idl/replication"
	"github.com/apache/incubator-pegasus/go-client/idl/rrdb"
	"github.com/apache/incubator-pegasus/go-client/pegasus"
	"github.com/apache/incubator-pegasus/go-client/session"
)

// partitions is how many partitions the table must have.
const partitions = 8

// query asks the meta service for the table, as the client does.
func (s *suite) query() *replication.QueryCfgResponse {
	metas := session.NewMetaManager([]string{s.meta}, session.NewNodeSession)
	defer metas.Close()
	ctx, cancel := within(operationTime)
	defer cancel()
	got, err := metas.QueryConfig(ctx, s.tableName)
	if !s.noError("query of the table", err) {
		return nil
	}
	return got
}

// routes checks what the meta service says about the table.
func (s *suite) routes() {
	got := s.query()
	if got == nil {
		return
	}
	s.equal("err", got.Err.Errno, "ERR_OK")
	s.that("app id", got.AppID > 0, got.AppID)
	s.equal("partition count", got.PartitionCount, int32(partitions))
	s.equal("is stateful", got.IsStateful, true)
	if !s.equal("partitions", len(got.Partitions), partitions) {
		return
	}
	for i, one := range got.Partitions {
		s.equal("pid", *one.Pid, base.Gpid{Appid: got.AppID, PartitionIndex: int32(i)})
		s.that("ballot", one.Ballot >= 1, one.Ballot)
		s.that("replica count", one.MaxReplicaCount >= 1, one.MaxReplicaCount)
		s.that("primary", one.Primary.GetRawAddress() != 0, one.Primary)
		for _, other := range one.Secondaries {
			s.that("secondary", other.GetRawAddress() != 0 && *other != *one.Primary, other)
		}
	}
}

// target is a partition, as requests below the client name it.
type target struct {
	gpid    *base.Gpid
	hash    uint64
	key     *base.Blob
	primary string
	others  []string
}

var crcTable = crc64.MakeTable(0x9a6c9329ac4bc9b5)

// targetOf finds the partition of a row.
func targetOf(config *replication.QueryCfgResponse, hash, sort []byte) target {
	key := make([]byte, 2, 2+len(hash)+len(sort))
	binary.BigEndian.PutUint16(key, uint16(len(hash)))
	key = append(append(key, hash...), sort...)
	sum := crc64.Checksum(hash, crcTable)
	index := sum % uint64(len(config.Partitions))
	partition := config.Partitions[index]
	t := target{
		gpid: &base.Gpid{Appid: config.AppID, PartitionIndex: int32(index)}, hash: sum,
		key: &base.Blob{Data: key}, primary: partition.Primary.GetAddress(),
	}
	for _, other := range partition.Secondaries {
		t.others = append(t.others, other.GetAddress())
	}
	return t
}

// below uses the client's sessions directly, to see what the client hides: every field of the answers, and the
// errors of requests that went astray.
func (s *suite) below() {
	config := s.query()
	if config == nil {
		return
	}
	t := targetOf(config, s.key("below"), []byte("sort"))
	nodes := session.NewReplicaManager(session.NewNodeSession)
	defer nodes.Close()
	primary := nodes.GetReplica(t.primary)
	ctx, cancel := within(operationTime)
	defer cancel()
	put, err := primary.Put(ctx, t.gpid, t.hash, &rrdb.UpdateRequest{Key: t.key, Value: &base.Blob{Data: []byte("1")}})
	if s.noError("put", err) {
		s.equal("put", fmt.Sprint(put.Error, put.AppID, put.PartitionIndex, put.Server),
			fmt.Sprint(0, t.gpid.Appid, t.gpid.PartitionIndex, t.primary))
		s.that("decree of put", put.Decree > 0, put.Decree)
	}
	incr, err := primary.Incr(ctx, t.gpid, t.hash, &rrdb.IncrRequest{Key: t.key, Increment: 4})
	if s.noError("incr", err) {
		s.equal("incr", fmt.Sprint(incr.Error, incr.NewValue_, incr.AppID, incr.PartitionIndex, incr.Server),
			fmt.Sprint(0, 5, t.gpid.Appid, t.gpid.PartitionIndex, t.primary))
		s.that("decree of incr", put != nil && incr.Decree > put.Decree, incr.Decree)
	}
	get, err := primary.Get(ctx, t.gpid, t.hash, t.key)
	if s.noError("get", err) {
		s.equal("get", fmt.Sprint(get.Error, string(get.Value.Data), get.AppID, get.PartitionIndex, get.Server),
			fmt.Sprint(0, "5", t.gpid.Appid, t.gpid.PartitionIndex, t.primary))
	}
	missing := targetOf(config, s.key("below"), []byte("missing"))
	get, err = primary.Get(ctx, missing.gpid, missing.hash, missing.key)
	if s.noError("get of nothing", err) {
		s.equal("get of nothing", get.Error, int32(1))
		s.that("value of nothing is there and empty", get.Value != nil && len(get.Value.Data) == 0, get.Value)
	}
	s.bodyErrors(ctx, primary, t)
	s.astray(ctx, nodes, t)
}

// bodyErrors checks the errors that travel within answers.
func (s *suite) bodyErrors(ctx context.Context, primary *session.ReplicaSession, t target) {
	word := &base.Blob{Data: append(append([]byte{}, t.key.Data...), "word"...)}
	_, err := primary.Put(ctx, t.gpid, t.hash, &rrdb.UpdateRequest{Key: word, Value: &base.Blob{Data: []byte("abc")}})
	s.noError("put of a word", err)
	incr, err := primary.Incr(ctx, t.gpid, t.hash, &rrdb.IncrRequest{Key: word, Increment: 1})
	if s.noError("incr of a word", err) {
		s.equal("incr of a word", incr.Error, int32(base.InvalidArgument))
	}
	hash := &base.Blob{Data: s.key("below")}
	multi, err := primary.MultiSet(ctx, t.gpid, t.hash, &rrdb.MultiPutRequest{HashKey: hash})
	if s.noError("multi put of nothing", err) {
		s.equal("multi put of nothing", multi.Error, int32(base.InvalidArgument))
	}
	remove, err := primary.MultiDelete(ctx, t.gpid, t.hash, &rrdb.MultiRemoveRequest{HashKey: hash})
	if s.noError("multi remove of nothing", err) {
		s.equal("multi remove of nothing", remove.Error, int32(base.InvalidArgument))
	}
	keys := []*base.Blob{{Data: []byte("x")}, {Data: []byte("y")}, {Data: []byte("sort")}}
	remove, err = primary.MultiDelete(ctx, t.gpid, t.hash, &rrdb.MultiRemoveRequest{HashKey: hash, SorkKeys: keys})
	if s.noError("multi remove", err) {
		s.equal("multi remove counts what was asked for", fmt.Sprint(remove.Error, remove.Count), "0 3")
	}
	scan, err := primary.Scan(ctx, t.gpid, t.hash, &rrdb.ScanRequest{ContextID: 1234567})
	if s.noError("scan of no context", err) {
		s.equal("scan of no context", scan.Error, int32(base.NotFound))
	}
	get := rrdb.NewMultiGetRequest()
	get.HashKey, get.StartSortkey, get.StopSortkey = hash, &base.Blob{}, &base.Blob{}
	get.SortKeyFilterType, get.SortKeyFilterPattern = rrdb.FilterType(77), &base.Blob{Data: []byte("x")}
	rows, err := primary.MultiGet(ctx, t.gpid, t.hash, get)
	if s.noError("multi get with an unknown filter", err) {
		s.equal("multi get with an unknown filter", rows.Error, int32(base.InvalidArgument))
	}
}

// astray sends requests to where they do not belong.
func (s *suite) astray(ctx context.Context, nodes *session.ReplicaManager, t target) {
	primary := nodes.GetReplica(t.primary)
	for _, other := range t.others {
		_, err := nodes.GetReplica(other).Get(ctx, t.gpid, t.hash, t.key)
		known := err == base.ERR_INVALID_STATE || err == base.ERR_OBJECT_NOT_FOUND
		s.that("get from a secondary", known, err)
	}
	_, err := primary.Get(ctx, &base.Gpid{Appid: 9999, PartitionIndex: 0}, t.hash, t.key)
	s.equal("get of an unknown table", err, error(base.ERR_OBJECT_NOT_FOUND))
	_, err = primary.Get(ctx, &base.Gpid{Appid: t.gpid.Appid, PartitionIndex: 12345}, t.hash, t.key)
	s.equal("get of an unknown partition", err, error(base.ERR_OBJECT_NOT_FOUND))
	_, err = primary.Get(ctx, &base.Gpid{Appid: -1, PartitionIndex: -1}, t.hash, t.key)
	s.equal("get of an impossible partition", err, error(base.ERR_OBJECT_NOT_FOUND))
	args := &rrdb.RrdbGetArgs{Key: t.key}
	_, err = primary.CallWithGpid(ctx, t.gpid, t.hash, args, "RPC_RRDB_RRDB_NONSENSE")
	s.equal("unknown request", err, error(base.ERR_HANDLER_NOT_FOUND))
	_, err = primary.Get(ctx, t.gpid, t.hash, t.key)
	s.noError("the connection lives on", err)
}

// noTable opens a table that does not exist. That must be said at once, not when the time is over.
func (s *suite) noTable() {
	client := pegasus.NewClient(pegasus.Config{MetaServers: []string{s.meta}})
	defer client.Close()
	ctx, cancel := within(operationTime)
	defer cancel()
	started := time.Now()
	_, err := client.OpenTable(ctx, s.run+"none")
	s.refused("open of no table", err, "ERR_OBJECT_NOT_FOUND")
	s.that("said at once", time.Since(started) < operationTime, time.Since(started))
	_, err = client.OpenTable(ctx, strings.Repeat("n", 300))
	s.that("open of a long name", err != nil)
	table, err := client.OpenTable(ctx, s.tableName)
	if s.noError("open after it", err) {
		_, err = table.Get(ctx, s.key("rows"), []byte{})
		s.noError("get after it", err)
	}
}
