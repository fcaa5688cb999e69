//! Administration: tables are made, dropped, recalled, renamed, listed and set up.

use pegasus_gateway::thrift::ThriftError;
use pegasus_gateway::{ErrorName, Rpc};

use super::{Call, Front};

impl Front {
    pub(super) async fn administer(&self, _rpc: Rpc, _call: &mut Call<'_>) -> Result<Option<ErrorName>, ThriftError> {
        Ok(None)
    }
}
