//! The methods with the types of their arguments and answers (facts 2.5, 2.6, 2.10), for tests and for fuzzing alike.

use pegasus_gateway::answer::Answer;
use pegasus_gateway::frame::Message;
use pegasus_gateway::messages::admin::*;
use pegasus_gateway::messages::meta::*;
use pegasus_gateway::messages::read::*;
use pegasus_gateway::messages::write::*;
use pegasus_gateway::thrift::{Blob, Reader, ThriftError, Writer};
use pegasus_gateway::{Rpc, thrift::Value};

macro_rules! methods {
    ($($rpc:ident: $argument:ty => $answer:ty,)*) => {
        /// Reads the argument of this method. What can be read is written and read again, and must be the same.
        pub(crate) fn read_argument(rpc: Rpc, message: &Message<'_>) -> Result<(), ThriftError> {
            match rpc {
                $(Rpc::$rpc => {
                    let value = message.argument::<$argument>()?;
                    let bytes = written(&value);
                    let again = <$argument as Value<'_>>::read(&mut Reader::new(&bytes));
                    assert_eq!(again.as_ref(), Ok(&value));
                })*
            }
            Ok(())
        }

        /// The same for the answer. `ClearScanner` has none; any type does.
        pub(crate) fn read_result(rpc: Rpc, answer: &Answer<'_>) -> Result<(), ThriftError> {
            match rpc {
                $(Rpc::$rpc => {
                    let value = answer.result::<$answer>()?;
                    let bytes = written(&value);
                    let again = <$answer as Value<'_>>::read(&mut Reader::new(&bytes));
                    assert_eq!(again.as_ref(), Ok(&value));
                })*
            }
            Ok(())
        }
    };
}

methods! {
    Get: Blob<'_> => ReadResponse<'_>,
    Put: UpdateRequest<'_> => UpdateResponse<'_>,
    MultiPut: MultiPutRequest<'_> => UpdateResponse<'_>,
    Remove: Blob<'_> => UpdateResponse<'_>,
    MultiRemove: MultiRemoveRequest<'_> => MultiRemoveResponse<'_>,
    Incr: IncrRequest<'_> => IncrResponse<'_>,
    CheckAndSet: CheckAndSetRequest<'_> => CheckResponse<'_>,
    CheckAndMutate: CheckAndMutateRequest<'_> => CheckResponse<'_>,
    Ttl: Blob<'_> => TtlResponse<'_>,
    SortkeyCount: Blob<'_> => CountResponse<'_>,
    MultiGet: MultiGetRequest<'_> => MultiGetResponse<'_>,
    BatchGet: BatchGetRequest<'_> => BatchGetResponse<'_>,
    GetScanner: GetScannerRequest<'_> => ScanResponse<'_>,
    Scan: ScanRequest => ScanResponse<'_>,
    ClearScanner: i64 => bool,
    QueryCfg: QueryCfgRequest<'_> => QueryCfgResponse<'_>,
    CreateApp: CreateAppRequest<'_> => CreateAppResponse<'_>,
    DropApp: DropAppRequest<'_> => PlainResponse<'_>,
    RecallApp: RecallAppRequest<'_> => RecallAppResponse<'_>,
    RenameApp: RenameAppRequest<'_> => HintResponse<'_>,
    ListApps: ListAppsRequest<'_> => ListAppsResponse<'_>,
    ListNodes: ListNodesRequest => ListNodesResponse<'_>,
    ClusterInfo: ClusterInfoRequest => ClusterInfoResponse<'_>,
    UpdateAppEnv: UpdateAppEnvRequest<'_> => HintResponse<'_>,
}

fn written<'a>(value: &impl Value<'a>) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.write(&mut Writer::new(&mut bytes));
    bytes
}
