package main

import (
	"context"
	"fmt"
	"time"

	"github.com/apache/incubator-pegasus/go-client/admin"
	idl "github.com/apache/incubator-pegasus/go-client/idl/admin"
	"github.com/apache/incubator-pegasus/go-client/pegasus"
	"github.com/apache/incubator-pegasus/go-client/session"
)

// adminTime is what one request of an administrator may take; a created table has to be served within it.
const adminTime = 60 * time.Second

// office is what the checks of the admin mode share.
type office struct {
	*checks
	settings
	admin admin.Client
	metas *session.MetaManager
	name  string
}

// adminMode creates, lists, drops and recalls tables, sets environments, and asks for nodes and the cluster.
func adminMode(args settings) int {
	metas := []string{args.meta}
	o := &office{checks: &checks{}, settings: args, admin: admin.NewClient(admin.Config{MetaServers: metas})}
	o.metas = session.NewMetaManager(metas, session.NewNodeSession)
	o.name = "go_admin_" + newRun()[3:15]
	o.part = "tables"
	if !o.served() {
		return o.finish()
	}
	o.createAndDrop()
	o.part = "recall"
	o.dropAndRecall()
	o.part = "environments"
	o.environments()
	o.part = "cluster"
	o.cluster()
	o.noError("close", o.metas.Close())
	return o.finish()
}

// served checks that the meta service serves administrators at all. If not, each request would take its whole time.
func (o *office) served() bool {
	ctx, cancel := within(operationTime)
	defer cancel()
	_, err := o.admin.ListTables(ctx)
	return o.noError("list tables", err)
}

// listed tells whether the admin client lists a table.
func (o *office) listed(ctx context.Context, name string) bool {
	tables, err := o.admin.ListTables(ctx)
	o.noError("list tables", err)
	for _, table := range tables {
		if table.Name == name {
			return true
		}
	}
	return false
}

// open opens a table with a client of its own.
func (o *office) open(ctx context.Context, name string, use func(pegasus.TableConnector)) error {
	client := pegasus.NewClient(pegasus.Config{MetaServers: []string{o.meta}})
	defer client.Close()
	table, err := client.OpenTable(ctx, name)
	if err == nil {
		use(table)
	}
	return err
}

func (o *office) createAndDrop() {
	ctx, cancel := within(adminTime)
	defer cancel()
	name := o.name
	o.equal("the table of the other modes is listed", o.listed(ctx, o.tableName), true)
	o.equal("not listed before it is created", o.listed(ctx, name), false)
	// CreateTable waits for three replicas of each partition, so it needs three nodes.
	if !o.noError("create", o.admin.CreateTable(ctx, name, partitions)) {
		return
	}
	o.equal("listed after it was created", o.listed(ctx, name), true)
	o.refused("create what exists", o.admin.CreateTable(ctx, name, partitions), "ERR_APP_EXIST")
	o.noError("open", o.open(ctx, name, func(table pegasus.TableConnector) {
		o.noError("set", table.Set(ctx, []byte("h"), []byte("s"), []byte("v")))
		value, err := table.Get(ctx, []byte("h"), []byte("s"))
		o.noError("get", err)
		o.same("get", value, []byte("v"))
	}))
	again := &idl.CreateAppRequest{AppName: name, Options: &idl.CreateAppOptions{
		PartitionCount: partitions, ReplicaCount: 3, SuccessIfExist: true, AppType: "pegasus", IsStateful: true,
		Envs: map[string]string{},
	}}
	response, err := o.metas.CreateApp(ctx, again)
	if o.noError("create if it does not exist", err) {
		o.that("app id", response.Appid > 0, response.Appid)
	}
	o.noError("drop", o.admin.DropTable(ctx, name))
	o.equal("not listed after it was dropped", o.listed(ctx, name), false)
	o.refused("open after drop", o.open(ctx, name, func(pegasus.TableConnector) {}), "ERR_OBJECT_NOT_FOUND")
	o.noError("drop again, if it exists", o.admin.DropTable(ctx, name))
	_, err = o.metas.DropApp(ctx, &idl.DropAppRequest{AppName: name, Options: &idl.DropAppOptions{}})
	o.refused("drop what does not exist", err, "ERR_APP_NOT_EXIST")
	again.AppName, again.Options.PartitionCount = name+"_0", 0
	_, err = o.metas.CreateApp(ctx, again)
	o.refused("create without partitions", err, "ERR_INVALID_PARAMETERS")
}

// info finds a table among those of a status.
func (o *office) info(ctx context.Context, status idl.AppStatus, name string) *idl.AppInfo {
	response, err := o.metas.ListApps(ctx, &idl.ListAppsRequest{Status: status})
	if !o.noError("list apps", err) {
		return nil
	}
	for _, info := range response.Infos {
		if info.AppName == name {
			return info
		}
	}
	return nil
}

func (o *office) dropAndRecall() {
	ctx, cancel := within(adminTime)
	defer cancel()
	name := o.name + "_recalled"
	if !o.noError("create", o.admin.CreateTable(ctx, name, partitions)) {
		return
	}
	o.noError("open", o.open(ctx, name, func(table pegasus.TableConnector) {
		o.noError("set", table.Set(ctx, []byte("h"), []byte("s"), []byte("kept")))
	}))
	info := o.info(ctx, idl.AppStatus_AS_AVAILABLE, name)
	if !o.that("listed as available", info != nil) {
		return
	}
	o.equal("info", fmt.Sprint(info.Status, info.AppType, info.PartitionCount, info.IsStateful, info.MaxReplicaCount),
		fmt.Sprint(idl.AppStatus_AS_AVAILABLE, "pegasus", partitions, true, 3))
	held := int64(3600)
	_, err := o.metas.DropApp(ctx, &idl.DropAppRequest{AppName: name, Options: &idl.DropAppOptions{ReserveSeconds: &held}})
	o.noError("drop, held for an hour", err)
	o.that("not available any more", o.info(ctx, idl.AppStatus_AS_AVAILABLE, name) == nil)
	dropped := o.info(ctx, idl.AppStatus_AS_DROPPED, name)
	if o.that("listed as dropped", dropped != nil) {
		o.equal("dropped app id", dropped.AppID, info.AppID)
		o.equal("dropped status", dropped.Status, idl.AppStatus_AS_DROPPED)
	}
	recalled, err := o.metas.RecallApp(ctx, &idl.RecallAppRequest{AppID: info.AppID, NewAppName_: name + "_again"})
	if o.noError("recall", err) {
		o.equal("recalled", fmt.Sprint(recalled.Info.AppID, recalled.Info.AppName), fmt.Sprint(info.AppID, name+"_again"))
	}
	o.eventually("rows of the recalled table", func() string {
		text := ""
		err := o.open(ctx, name+"_again", func(table pegasus.TableConnector) {
			short, done := within(2 * time.Second)
			defer done()
			value, err := table.Get(short, []byte("h"), []byte("s"))
			text = fmt.Sprint(string(value), err)
		})
		if err != nil {
			return err.Error()
		}
		return text
	}, "kept<nil>")
	o.noError("drop at the end", o.admin.DropTable(ctx, name+"_again"))
}

// eventually asks until an answer is as it should be.
func (o *office) eventually(what string, ask func() string, want string) {
	got, deadline := "", time.Now().Add(adminTime)
	for time.Now().Before(deadline) {
		if got = ask(); got == want {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	o.equal(what, got, want)
}

// environments gives rows of a table a ttl by its environment, and takes it away.
func (o *office) environments() {
	ctx, cancel := within(3 * adminTime)
	defer cancel()
	name := o.name + "_envs"
	if !o.noError("create", o.admin.CreateTable(ctx, name, partitions)) {
		return
	}
	update := func(op idl.AppEnvOperation, keys, values []string, prefix *string) {
		_, err := o.metas.UpdateAppEnv(ctx, &idl.UpdateAppEnvRequest{
			AppName: name, Op: op, Keys: keys, Values: values, ClearPrefix: prefix,
		})
		o.noError(fmt.Sprint("update environment ", op, keys), err)
	}
	envs := func(want string) {
		if info := o.info(ctx, idl.AppStatus_AS_AVAILABLE, name); o.that("listed", info != nil) {
			o.equal("environment", fmt.Sprint(info.Envs), want)
		}
	}
	ttl := func(least, most int) {
		o.eventually(fmt.Sprint("ttl of new rows ", most), func() string {
			in := "no"
			err := o.open(ctx, name, func(table pegasus.TableConnector) {
				if err := table.Set(ctx, []byte("h"), []byte("s"), []byte("v")); err != nil {
					in = err.Error()
					return
				}
				got, err := table.TTL(ctx, []byte("h"), []byte("s"))
				in = fmt.Sprint(err == nil && got >= least && got <= most)
			})
			if err != nil {
				return err.Error()
			}
			return in
		}, "true")
	}
	envs("map[]")
	update(idl.AppEnvOperation_APP_ENV_OP_SET, []string{"default_ttl"}, []string{"1000"}, nil)
	envs("map[default_ttl:1000]")
	ttl(900, 1000)
	update(idl.AppEnvOperation_APP_ENV_OP_DEL, []string{"default_ttl"}, nil, nil)
	envs("map[]")
	ttl(-1, -1)
	update(idl.AppEnvOperation_APP_ENV_OP_SET, []string{"default_ttl"}, []string{"1000"}, nil)
	prefix := ""
	update(idl.AppEnvOperation_APP_ENV_OP_CLEAR, nil, nil, &prefix)
	envs("map[]")
	o.noError("drop", o.admin.DropTable(ctx, name))
}

// cluster asks for nodes and for the cluster itself, and makes a request that nobody serves.
func (o *office) cluster() {
	ctx, cancel := within(adminTime)
	defer cancel()
	nodes, err := o.metas.ListNodes(ctx, &idl.ListNodesRequest{Status: idl.NodeStatus_NS_ALIVE})
	if o.noError("list nodes", err) {
		o.that("nodes alive", len(nodes.Infos) >= 3, len(nodes.Infos))
		for _, node := range nodes.Infos {
			o.equal("status of a node", node.Status, idl.NodeStatus_NS_ALIVE)
			o.that("address of a node", node.Address.GetRawAddress() != 0, node.Address)
		}
	}
	nodes, err = o.metas.ListNodes(ctx, &idl.ListNodesRequest{Status: idl.NodeStatus_NS_UNALIVE})
	if o.noError("list nodes that are not alive", err) {
		o.equal("nodes that are not alive", len(nodes.Infos), 0)
	}
	info, err := o.metas.QueryClusterInfo(ctx, &idl.ClusterInfoRequest{})
	if o.noError("cluster info", err) {
		o.that("cluster info", len(info.Keys) > 0 && len(info.Keys) == len(info.Values), info.Keys, info.Values)
	}
	short, done := within(refusedTime)
	defer done()
	_, err = o.metas.QueryBackupPolicy(short, &idl.QueryBackupPolicyRequest{PolicyNames: []string{}})
	o.that("a request that nobody serves is an error", err != nil)
	o.equal("the connection lives on", o.listed(ctx, o.tableName), true)
}
