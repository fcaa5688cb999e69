//! What operators ask when something is wrong: which partitions are not whole, and the last resort.

use pegasus_wire::messages::control::{self, ProposalReply};
use pegasus_wire::{Frame, Status};

use super::handlers::{Answer, Caller, Service, reply, unexpected};
use crate::core::{Command, Outcome, diagnose};

impl Service {
    /// Explains the partitions that are not whole.
    pub(super) async fn diagnose_partitions(&self, frame: &Frame) -> Answer {
        let message: control::DiagnosePartitions = frame.decode()?;
        self.group.confirm_lead().await?;
        let table = message.table.as_deref();
        let found = self.group.read(|state| diagnose(state, &self.planner.heard(state), self.planner.limits(), table));
        Ok(reply(frame, Status::Ok, &found?))
    }

    /// Makes one node the only member of a partition. What is refused is logged as well: somebody tried.
    pub(super) async fn force_configuration(&self, caller: Caller, frame: &Frame) -> Answer {
        let message: control::ForceConfiguration = frame.decode()?;
        let (partition, primary, expected) = (message.partition, message.primary, message.expected_ballot);
        let before = self.group.read(|state| state.configuration(partition).cloned());
        let Caller { role, peer, .. } = caller;
        tracing::warn!(%peer, %role, %partition, %primary, %expected, ?before, "an operator forces a configuration");
        let outcome = self.propose(Command::Force(message.into())).await;
        match outcome {
            Ok(Outcome::Accepted { configuration }) => {
                tracing::warn!(
                    %peer, %role, %partition, %primary, ballot = %configuration.ballot,
                    "configuration forced: what only the other members held is lost"
                );
                Ok(reply(frame, Status::Ok, &ProposalReply { configuration }))
            }
            Ok(Outcome::Conflict { configuration }) => {
                tracing::warn!(%partition, in_force = %configuration.ballot, "not forced: the ballot has moved");
                Ok(reply(frame, Status::BallotConflict, &ProposalReply { configuration }))
            }
            Ok(other) => Err(unexpected(&other)),
            Err(failure) => {
                tracing::warn!(%partition, reason = %failure.message(), "not forced");
                Err(failure)
            }
        }
    }
}
