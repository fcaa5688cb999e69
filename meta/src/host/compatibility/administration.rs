//! Administration: tables are made, dropped, recalled, renamed and set up. What may be done, and when, is decided by
//! the functions that our own protocol uses; here requests become their arguments, and refusals names and hints.
//!
//! Whatever cannot be carried out says so in the answer's `err`. Some answers have room for an explanation; in any case
//! the log has it.

use std::collections::BTreeMap;

use pegasus_gateway::messages::admin::{
    AppEnvOperation, AppInfo, AppStatus, CreateAppRequest, CreateAppResponse, DropAppRequest, HintResponse,
    PlainResponse, RecallAppRequest, RecallAppResponse, RenameAppRequest, UpdateAppEnvRequest,
};
use pegasus_gateway::thrift::{ErrorCode, Map, ThriftError};
use pegasus_gateway::{ErrorName, Rpc};
use pegasus_wire::messages::control::{DropTable, EnvironmentEntry, TableReply, TableState};
use pegasus_wire::{Durability, Status, TableId, TableProperties};

use super::names::error_name;
use super::{Call, Front};
use crate::core::{ChangeEnvironment, Command, CreateTable, RecallTable, Refusal, RenameTable};
use crate::host::handlers::Failure;

/// Why a request was not carried out.
pub(super) struct Refused {
    /// What the client is told.
    pub(super) name: ErrorName,
    /// What people are told.
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(name: ErrorName, message: impl Into<String>) -> Refused {
        Refused { name, message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Refused {
        Refused::new(ErrorName::InvalidParameters, message)
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused::new(error_name(&failure, ErrorName::AppNotExist), failure.message())
    }
}

impl Front {
    /// Carries out a request of administration; `None` if the method is none.
    pub(super) async fn administer(&self, rpc: Rpc, call: &mut Call<'_>) -> Result<Option<ErrorName>, ThriftError> {
        let outcome = match rpc {
            Rpc::CreateApp => self.create_app(call).await,
            Rpc::DropApp => self.drop_app(call).await,
            Rpc::RecallApp => self.recall_app(call).await,
            Rpc::RenameApp => self.rename_app(call).await,
            Rpc::UpdateAppEnv => self.update_app_env(call).await,
            Rpc::ListApps => self.list_apps(call).await,
            Rpc::ListNodes => self.list_nodes(call).await,
            Rpc::ClusterInfo => self.cluster_info(call).await,
            _ => return Ok(None),
        };
        outcome.map(Some)
    }

    /// Refuses administration if it is not configured, and whatever comes once the process is stopping.
    pub(super) fn check_administration(&self) -> Result<(), Refused> {
        self.service.check_running()?;
        if self.config.administration {
            return Ok(());
        }
        Err(Refused::new(
            ErrorName::InvalidState,
            "administration over the compatibility port is off (compatibility.administration): use the pegasus shell",
        ))
    }

    /// Logs a refusal, as many answers have no room for its explanation.
    pub(super) fn settle<T>(&self, call: &Call<'_>, result: Result<T, Refused>) -> Result<T, Refused> {
        result.inspect_err(|Refused { name, message }| {
            let (method, peer) = (call.message.name.escape_ascii(), call.asker.peer);
            self.quiet.refused.warn(|| format!("{method} of {peer} is refused with {}: {message}", name.text()));
        })
    }

    async fn create_app(&self, call: &mut Call<'_>) -> Result<ErrorName, ThriftError> {
        let request = call.argument()?;
        Ok(match self.settle(call, self.create(&request).await) {
            Ok(made) => call.reply(ErrorName::Ok, &CreateAppResponse { err: OK, appid: app_id(&made.table) }),
            Err(Refused { name, .. }) => {
                call.reply(name, &CreateAppResponse { err: ErrorCode(name.text()), ..CreateAppResponse::default() })
            }
        })
    }

    /// Whether increments and checks are replicated as what they come to is not asked: here they always are.
    async fn create(&self, request: &CreateAppRequest<'_>) -> Result<TableReply, Refused> {
        self.check_administration()?;
        let options = &request.options;
        if options.app_type != APP_TYPE {
            return Err(Refused::invalid(format!("tables have the type {APP_TYPE:?}, not {:?}", options.app_type)));
        }
        let negative = |_| Refused::invalid("the counts of partitions and replicas are positive and small");
        let table = CreateTable {
            name: request.app_name.to_owned(),
            partition_count: u32::try_from(options.partition_count).map_err(negative)?,
            replica_count: u8::try_from(options.replica_count).map_err(negative)?,
            durability: Durability::default(),
            if_not_exists: options.success_if_exist,
            live: self.service.group.read(|state| self.service.planner.heard(state).alive()),
        };
        let pair = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        let environment: BTreeMap<String, String> = options.envs.0.iter().map(pair).collect();
        let made = self.service.make_table(Command::CreateTableWith { table, environment }).await;
        made.map_err(|failure| match failure.status() {
            // It is there, but not as asked.
            Status::TableExists if options.success_if_exist => Refused::invalid(failure.message()),
            _ => failure.into(),
        })
    }

    async fn drop_app(&self, call: &mut Call<'_>) -> Result<ErrorName, ThriftError> {
        let request = call.argument()?;
        let dropped = self.settle(call, self.take(call, &request).await);
        let name = dropped.map_or_else(|refused| refused.name, |()| ErrorName::Ok);
        Ok(call.reply(name, &PlainResponse { err: ErrorCode(name.text()) }))
    }

    async fn take(&self, call: &Call<'_>, request: &DropAppRequest<'_>) -> Result<(), Refused> {
        self.check_administration()?;
        let message = DropTable {
            name: request.app_name.to_owned(),
            // As in Pegasus, only a positive time counts as one.
            hold_seconds: request
                .options
                .reserve_seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|&s| s > 0),
            if_exists: request.options.success_if_not_exist,
        };
        self.service.take_from_service(call.asker, message).await?;
        Ok(())
    }

    async fn recall_app(&self, call: &mut Call<'_>) -> Result<ErrorName, ThriftError> {
        let request = call.argument()?;
        Ok(match self.settle(call, self.recall(call, &request).await) {
            Ok(TableReply { table, environment, .. }) => {
                let info = app_info(&table, &environment, TableState::Available);
                call.reply(ErrorName::Ok, &RecallAppResponse { err: OK, info })
            }
            Err(Refused { name, .. }) => {
                call.reply(name, &RecallAppResponse { err: ErrorCode(name.text()), ..RecallAppResponse::default() })
            }
        })
    }

    async fn recall(&self, call: &Call<'_>, request: &RecallAppRequest<'_>) -> Result<TableReply, Refused> {
        self.check_administration()?;
        let number = u32::try_from(request.app_id).map_err(|_| Refused::invalid("tables have positive numbers"))?;
        let name = Some(request.new_app_name.to_owned()).filter(|name| !name.is_empty());
        let command = Command::RecallTable(RecallTable { table: TableId(number), name });
        let recalled = self.service.change_table(call.asker, "recalled", command).await;
        recalled.map_err(|failure| match failure.status() {
            Status::NotDropped => {
                let serves = self.service.group.read(|state| state.tables().contains_key(&TableId(number)));
                let name = if serves { ErrorName::AppExist } else { ErrorName::AppNotExist };
                Refused::new(name, failure.message())
            }
            Status::TableExists => Refused::invalid(failure.message()),
            _ => failure.into(),
        })
    }

    async fn rename_app(&self, call: &mut Call<'_>) -> Result<ErrorName, ThriftError> {
        let request = call.argument()?;
        let renamed = self.rename(call, &request).await;
        Ok(self.reply_with_hint(call, renamed))
    }

    async fn rename(&self, call: &Call<'_>, request: &RenameAppRequest<'_>) -> Result<(), Refused> {
        self.check_administration()?;
        let (name, new_name) = (request.old_app_name.to_owned(), request.new_app_name.to_owned());
        let command = Command::RenameTable(RenameTable { name, new_name });
        match self.service.change_table(call.asker, "renamed", command).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.status() == Status::TableExists => Err(Refused::invalid(failure.message())),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn update_app_env(&self, call: &mut Call<'_>) -> Result<ErrorName, ThriftError> {
        let request = call.argument()?;
        let changed = self.update(call, &request).await;
        Ok(self.reply_with_hint(call, changed))
    }

    async fn update(&self, call: &Call<'_>, request: &UpdateAppEnvRequest<'_>) -> Result<(), Refused> {
        self.check_administration()?;
        let mut change =
            ChangeEnvironment { name: request.app_name.to_owned(), clear: false, delete: Vec::new(), set: Vec::new() };
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<String>>();
        let keys = owned(request.keys.as_deref().unwrap_or_default());
        let prefix = request.clear_prefix.unwrap_or_default();
        match request.op {
            AppEnvOperation::SET => {
                let values = owned(request.values.as_deref().unwrap_or_default());
                if keys.is_empty() || keys.len() != values.len() {
                    return Err(Refused::invalid("setting needs keys, and as many values"));
                }
                change.set = keys.into_iter().zip(values).collect();
            }
            AppEnvOperation::DELETE if keys.is_empty() => return Err(Refused::invalid("deleting needs keys")),
            AppEnvOperation::DELETE => change.delete = keys,
            AppEnvOperation::CLEAR if prefix.is_empty() => change.clear = true,
            AppEnvOperation::CLEAR => change.delete = self.keys_with(request.app_name, prefix).await?,
            AppEnvOperation(other) => return Err(Refused::invalid(format!("there is no operation {other}"))),
        }
        let command = Command::ChangeEnvironment(change);
        self.service.change_table(call.asker, "environment changed", command).await?;
        Ok(())
    }

    /// The keys of a table's environment that begin with `prefix`, as of now.
    async fn keys_with(&self, name: &str, prefix: &str) -> Result<Vec<String>, Failure> {
        self.service.group.confirm_lead().await?;
        let keys = self.service.group.read(|state| {
            let keys = state.find_table(name)?.environment.keys();
            Ok::<_, Refusal>(keys.filter(|key| key.starts_with(prefix)).cloned().collect())
        });
        Ok(keys?)
    }

    fn reply_with_hint(&self, call: &mut Call<'_>, result: Result<(), Refused>) -> ErrorName {
        let refused = self.settle(call, result).err().unwrap_or_else(|| Refused::new(ErrorName::Ok, ""));
        let Refused { name, message } = refused;
        call.reply(name, &HintResponse { err: ErrorCode(name.text()), hint_message: &message })
    }
}

/// A table as Pegasus describes it. When it was made is not kept.
pub(super) fn app_info<'a>(
    table: &'a TableProperties,
    environment: &'a [EnvironmentEntry],
    state: TableState,
) -> AppInfo<'a> {
    let (status, drop_seconds, purge_seconds) = match state {
        TableState::Available => (AppStatus::AVAILABLE, 0, 0),
        TableState::Dropped { dropped_seconds, purge_seconds } => (AppStatus::DROPPED, dropped_seconds, purge_seconds),
    };
    let pair = |entry: &'a EnvironmentEntry| (entry.key.as_str(), entry.value.as_str());
    AppInfo {
        status,
        app_type: APP_TYPE,
        app_name: &table.name,
        app_id: app_id(table),
        partition_count: table.partition_count.cast_signed(),
        envs: Map(environment.iter().map(pair).collect()),
        is_stateful: true,
        max_replica_count: i32::from(table.replica_count),
        expire_second: purge_seconds.cast_signed(),
        drop_second: drop_seconds.cast_signed(),
        init_partition_count: NOT_SPLIT,
        ..AppInfo::default()
    }
}

fn app_id(table: &TableProperties) -> i32 {
    table.table.0.cast_signed()
}

/// Nothing is wrong.
pub(super) const OK: ErrorCode<'static> = ErrorCode("ERR_OK");
/// The only type of tables.
const APP_TYPE: &str = "pegasus";
/// In place of the number of partitions before a split.
const NOT_SPLIT: i32 = -1;
