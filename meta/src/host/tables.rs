//! What operators and clients ask about tables: their life, their settings, their routes. Each question is a function
//! of its own, which both protocols use; the handlers of our own protocol are around them.

use pegasus_wire::messages::control::{self, TableList, TableReply};
use pegasus_wire::{Frame, FrameBuilder, FrameHeader, Status, TableId};

use super::handlers::{Answer, Asker, Caller, Failure, Service, reply, unexpected};
use crate::core::{Command, CreateTable, DropTable, Outcome, PurgeTable, Refusal, State, query};

impl Service {
    /// Makes a table over the nodes that are alive now.
    pub(super) async fn create_table(&self, frame: &Frame) -> Answer {
        let message: control::CreateTable = frame.decode()?;
        let live = self.group.read(|state| self.planner.heard(state).alive());
        let made = self.make_table(Command::CreateTable(CreateTable::from_request(message, live))).await?;
        Ok(reply(frame, Status::Ok, &made))
    }

    /// Carries out a command that makes a table.
    pub(super) async fn make_table(&self, command: Command) -> Result<TableReply, Failure> {
        match self.propose(command).await? {
            Outcome::TableReady { table, created } => {
                let answer = self.table_reply(table)?;
                if created {
                    tracing::info!(table = %answer.table.name, number = %table, "table created");
                }
                Ok(answer)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// All tables, those included that were dropped and are still held.
    pub(super) async fn list_tables(&self, frame: &Frame) -> Answer {
        frame.decode::<control::ListTables>()?;
        Ok(reply(frame, Status::Ok, &self.all_tables().await?))
    }

    /// All tables as the leader sees them.
    pub(super) async fn all_tables(&self) -> Result<TableList, Failure> {
        self.group.confirm_lead().await?;
        Ok(self.group.read(query::table_list))
    }

    /// The route of a table that serves.
    pub(super) async fn query_table(&self, frame: &Frame) -> Answer {
        let message: control::QueryTable = frame.decode()?;
        self.group.confirm_lead().await?;
        let answer = self.group.read(|state| {
            let table = state.find_table(&message.name)?;
            Ok::<_, Refusal>(query::table_reply(state, table, &self.planner.heard(state)))
        });
        Ok(reply(frame, Status::Ok, &answer?))
    }

    /// Drops a table. The answer shows it as it was; it has no body if there was nothing to drop.
    pub(super) async fn drop_table(&self, caller: Caller, frame: &Frame) -> Answer {
        let message: control::DropTable = frame.decode()?;
        Ok(match self.take_from_service(caller.asker(), message).await? {
            Some(answer) => reply(frame, Status::Ok, &answer),
            None => reply_empty(frame),
        })
    }

    /// Drops a table; `None` if there was nothing to drop.
    pub(super) async fn take_from_service(
        &self,
        asker: Asker,
        message: control::DropTable,
    ) -> Result<Option<TableReply>, Failure> {
        let name = message.name.clone();
        // With no holding time at all it may be purged before its description is asked for.
        let before = self.group.read(|state| Some(self.describe(state, state.table_named(&name)?.properties.table)));
        let command = DropTable::from_request(message, self.hold_seconds, self.clock.now_seconds());
        let hold_seconds = command.hold_seconds;
        match self.propose(Command::DropTable(command)).await? {
            Outcome::TableChanged { table, .. } => {
                let Asker { peer, role } = asker;
                tracing::warn!(%peer, %role, %name, number = %table, hold_seconds, "table dropped");
                self.table_reply(table).or_else(|failure| before.flatten().ok_or(failure)).map(Some)
            }
            Outcome::NothingToDrop => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes a dropped table back.
    pub(super) async fn recall_table(&self, caller: Caller, frame: &Frame) -> Answer {
        let message: control::RecallTable = frame.decode()?;
        let recalled = self.change_table(caller.asker(), "recalled", Command::RecallTable(message.into())).await?;
        Ok(reply(frame, Status::Ok, &recalled))
    }

    /// Gives a table another name.
    pub(super) async fn rename_table(&self, caller: Caller, frame: &Frame) -> Answer {
        let message: control::RenameTable = frame.decode()?;
        let renamed = self.change_table(caller.asker(), "renamed", Command::RenameTable(message.into())).await?;
        Ok(reply(frame, Status::Ok, &renamed))
    }

    /// Changes a table's environment.
    pub(super) async fn change_environment(&self, caller: Caller, frame: &Frame) -> Answer {
        let message: control::ChangeEnvironment = frame.decode()?;
        let command = Command::ChangeEnvironment(message.into());
        let changed = self.change_table(caller.asker(), "environment changed", command).await?;
        Ok(reply(frame, Status::Ok, &changed))
    }

    /// Deletes a dropped table at once.
    pub(super) async fn purge_table(&self, caller: Caller, frame: &Frame) -> Answer {
        let message: control::PurgeTable = frame.decode()?;
        match self.propose(Command::PurgeTable(PurgeTable::from(message))).await? {
            Outcome::TablePurged { table, changed } => {
                if changed {
                    let Asker { peer, role } = caller.asker();
                    tracing::warn!(%peer, %role, number = %table, "table purged: an operator did not wait");
                }
                Ok(reply_empty(frame))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Carries out a command that changes a table; `what` it does is for the log.
    pub(super) async fn change_table(&self, asker: Asker, what: &str, command: Command) -> Result<TableReply, Failure> {
        match self.propose(command).await? {
            Outcome::TableChanged { table, changed } => {
                let answer = self.table_reply(table)?;
                if changed {
                    let (Asker { peer, role }, environment) = (asker, &answer.environment);
                    let (name, number) = (&answer.table.name, answer.table.table);
                    tracing::info!(%peer, %role, %name, %number, ?environment, "table {what}");
                }
                Ok(answer)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// The table's description for those who want its rows, as of now.
    fn table_reply(&self, table: TableId) -> Result<TableReply, Failure> {
        self.group.read(|state| self.describe(state, table)).ok_or_else(|| Refusal::Purged(table).into())
    }

    fn describe(&self, state: &State, table: TableId) -> Option<TableReply> {
        let table = state.tables().get(&table)?;
        Some(query::table_reply(state, table, &self.planner.heard(state)))
    }
}

/// An answer that is only its status.
fn reply_empty(request: &Frame) -> (Status, Vec<u8>) {
    let header = FrameHeader::answer(request.header.kind, request.header.request_id, Status::Ok);
    let mut bytes = Vec::new();
    FrameBuilder::append_empty(&mut bytes, header, &[]);
    (Status::Ok, bytes)
}
