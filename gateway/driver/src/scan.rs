//! Scans: the rows of one partition, or of one hash key, batch by batch.
//!
//! The server keeps a context for a scan and may forget it: after a while, when it restarts, when the partition moves.
//! The scan then goes on behind the last row it gave, so no row comes twice, and one that is there all the time is not
//! left out.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use pegasus_gateway::messages::read::{FilterType, GetScannerRequest, SCAN_COMPLETE, ScanRequest, ScanResponse};
use pegasus_gateway::thrift::{Blob, Value};
use pegasus_gateway::{Rpc, StorageCode};
use pegasus_wire::key;

use crate::connection::Request;
use crate::error::Error;
use crate::judge::Effect;
use crate::multi::place;
use crate::operations::{Ttl, check_hash_key, now_seconds};
use crate::table::{Place, Table, result_of};

/// Questions for the time to live that are under way at a time, where the server does not tell it with the rows.
const TTL_DEPTH: usize = 32;
/// A scan that was begun again so often without a row does not lead anywhere.
const REOPENED_MAX: u32 = 16;
/// First stored key of all.
const ROWS_BEGIN: [u8; 2] = [0, 0];

/// Which keys: those that have the pattern at a certain place. The default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// At which place.
    pub kind: FilterType,
    /// What must be there.
    pub pattern: Vec<u8>,
}

/// How a scan reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// Most rows in one batch; servers have a limit of their own, usually 1000. Default 1000.
    pub rows_per_request: u32,
    /// Leave the values out. Default false.
    pub no_value: bool,
    /// Which hash keys.
    pub hash_key_filter: Filter,
    /// Which sort keys.
    pub sort_key_filter: Filter,
    /// Tell when rows expire. Servers that cannot tell it with the rows are asked row by row, which is slow and exact
    /// to a second or two only. Default false.
    pub expiry: bool,
}

impl Default for ScanOptions {
    fn default() -> ScanOptions {
        let (hash_key_filter, sort_key_filter) = (Filter::default(), Filter::default());
        ScanOptions { rows_per_request: 1000, no_value: false, hash_key_filter, sort_key_filter, expiry: false }
    }
}

/// A row of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRow {
    /// Hash key.
    pub hash_key: Bytes,
    /// Sort key.
    pub sort_key: Bytes,
    /// Value; empty if values were left out.
    pub value: Bytes,
    /// Second at which it expires, since 2016; 0 means never, or that it was not asked for.
    pub expiry_seconds: u32,
}

/// A scan under way. After an error it may be continued; it stands behind the last row it gave. Dropping a future of
/// [`Scanner::next_batch`] loses no rows. Dropped before its end, it tells the server, if that can be done at once.
pub struct Scanner {
    table: Table,
    place: Place,
    options: ScanOptions,
    /// Behind which stored key, or at which, it goes on.
    start: Vec<u8>,
    start_inclusive: bool,
    /// Before which stored key it ends.
    stop: Vec<u8>,
    /// Whether all rows of a partition are meant, not those of a hash key.
    whole: bool,
    stands: Stands,
    expiry: Expiry,
    /// How often it was begun again since the last row.
    reopened: u32,
}

/// How the next batch is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// By a new context.
    Outside,
    /// By this one.
    Inside(i64),
    /// Not at all.
    AtEnd,
}

/// How expiries are found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    /// Not at all.
    Unasked,
    /// They come with the rows.
    WithRows,
    /// Row by row.
    ByRow,
}

/// A batch as it was answered.
struct Batch {
    rows: Vec<ScanRow>,
    /// The last row's stored key.
    last: Option<Bytes>,
    /// They ascend, and come behind those before.
    ascends: bool,
    /// Some rows lack an expiry that was asked for.
    lacks_expiry: bool,
    context: i64,
    error: i32,
}

impl Table {
    /// Walks over all rows of a partition, ascending by stored key. Errors: [`Error::Invalid`] if there is no such
    /// partition.
    pub fn partition_scan(&self, index: u32, options: ScanOptions) -> Result<Scanner, Error> {
        let (app_id, partition_count) = (self.id(), self.partition_count());
        if index >= partition_count {
            return Err(Error::Invalid(format!("partition {index} of {partition_count}")));
        }
        let place = Place::Partition { index, app_id, partition_count };
        Ok(Scanner::new(self, place, (ROWS_BEGIN.to_vec(), key::ROWS_END.to_vec()), true, options))
    }

    /// Walks over the rows of one hash key, ascending by sort key.
    pub fn hash_scan(&self, hash_key: &[u8], options: ScanOptions) -> Result<Scanner, Error> {
        check_hash_key(hash_key)?;
        let start = key::encode(hash_key, b"");
        // A hash key's length is never FF FF, so there is a key behind all of its rows.
        let stop = key::after_prefix(&start).unwrap_or_else(|| key::ROWS_END.to_vec());
        Ok(Scanner::new(self, place(hash_key), (start, stop), false, options))
    }
}

impl Scanner {
    fn new(
        table: &Table,
        place: Place,
        (start, stop): (Vec<u8>, Vec<u8>),
        whole: bool,
        options: ScanOptions,
    ) -> Scanner {
        let expiry = if options.expiry { Expiry::WithRows } else { Expiry::Unasked };
        Scanner {
            table: table.clone(),
            place,
            options,
            start,
            start_inclusive: true,
            stop,
            whole,
            stands: Stands::Outside,
            expiry,
            reopened: 0,
        }
    }

    /// The next rows, at least one; `None` at the end.
    ///
    /// Errors: those of a read; [`Error::NoSuchTable`] and [`Error::Refused`] with `split` if the table is not the
    /// same any more, after which the scan cannot go on.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<ScanRow>>, Error> {
        loop {
            // Until there is an answer nobody knows whether the context is still good.
            let batch = match std::mem::replace(&mut self.stands, Stands::Outside) {
                Stands::AtEnd => {
                    self.stands = Stands::AtEnd;
                    return Ok(None);
                }
                Stands::Outside => self.open().await?,
                Stands::Inside(context_id) => {
                    let request = Request { rpc: Rpc::Scan, argument: ScanRequest { context_id }, bytes: 0 };
                    self.ask(&request).await?
                }
            };
            if let Some(rows) = self.take(batch).await? {
                return Ok(Some(rows));
            }
            if self.stands == Stands::Outside {
                self.reopened += 1;
            }
            if self.reopened > REOPENED_MAX {
                return Err(Error::Timeout("the server forgets the scan again and again".to_owned()));
            }
        }
    }

    async fn open(&self) -> Result<Batch, Error> {
        let Scanner { options, start, stop, .. } = self;
        let argument = GetScannerRequest {
            start_key: Blob(start),
            stop_key: Blob(stop),
            start_inclusive: self.start_inclusive,
            stop_inclusive: false,
            batch_size: i32::try_from(options.rows_per_request.max(1)).unwrap_or(i32::MAX),
            no_value: options.no_value,
            hash_key_filter_type: options.hash_key_filter.kind,
            hash_key_filter_pattern: Blob(&options.hash_key_filter.pattern),
            sort_key_filter_type: options.sort_key_filter.kind,
            sort_key_filter_pattern: Blob(&options.sort_key_filter.pattern),
            validate_partition_hash: None,
            // Fields that mean something else to some old servers are only sent where they are needed.
            return_expire_ts: (self.expiry == Expiry::WithRows).then_some(true),
            full_scan: self.whole.then_some(true),
            only_return_count: None,
        };
        self.ask(&Request { rpc: Rpc::GetScanner, argument, bytes: start.len() + stop.len() }).await
    }

    async fn ask<'a, T: Value<'a>>(&self, request: &Request<T>) -> Result<Batch, Error> {
        let frame = self.table.send(self.place, request, Effect::Read).await?;
        let response: ScanResponse<'_> = result_of(&frame, Effect::Read)?;
        let mut rows = Vec::with_capacity(response.kvs.len());
        let mut lacks_expiry = false;
        for row in &response.kvs {
            let (hash_key, sort_key) = key::decode(row.key.0).map_err(|error| Error::Protocol(error.to_string()))?;
            lacks_expiry |= self.expiry == Expiry::WithRows && row.expire_ts_seconds.is_none();
            rows.push(ScanRow {
                hash_key: frame.slice_ref(hash_key),
                sort_key: frame.slice_ref(sort_key),
                value: frame.slice_ref(row.value.0),
                expiry_seconds: row.expire_ts_seconds.unwrap_or_default().cast_unsigned(),
            });
        }
        let last = response.kvs.last().map(|row| frame.slice_ref(row.key.0));
        // Rows that do not ascend would be lost, or come twice, when the scan is opened again.
        let first = response.kvs.first().map(|row| row.key.0);
        let begins = first.is_none_or(|first| first > &self.start[..] || (self.start_inclusive && first == self.start));
        let ascends = begins && response.kvs.is_sorted_by(|one, next| one.key.0 < next.key.0);
        Ok(Batch { rows, last, ascends, lacks_expiry, context: response.context_id, error: response.error })
    }

    /// Goes on by what was answered; gives rows if there are some.
    async fn take(&mut self, batch: Batch) -> Result<Option<Vec<ScanRow>>, Error> {
        let Batch { rows, last, ascends, lacks_expiry, context, error } = batch;
        let stopped_early = error == StorageCode::Incomplete.code();
        if error == StorageCode::NotFound.code() {
            // The context is gone.
            return Ok(None);
        }
        if error != StorageCode::Ok.code() && !stopped_early {
            return Err(Error::storage(error));
        }
        if lacks_expiry {
            // The server took the question for something else, so these rows may be others than were asked for.
            self.expiry = Expiry::ByRow;
            return Ok(None);
        }
        let stands = match context {
            _ if stopped_early => Stands::Outside,
            SCAN_COMPLETE => Stands::AtEnd,
            0.. => Stands::Inside(context),
            _ => return Err(Error::Protocol(format!("a scan with the context {context}"))),
        };
        let Some(last) = last else {
            if stopped_early {
                return Err(Error::storage(error));
            }
            self.stands = stands;
            return Ok(None);
        };
        if !ascends {
            return Err(Error::Protocol("rows of a scan that do not ascend".to_owned()));
        }
        self.reopened = 0;
        let rows = if self.expiry == Expiry::ByRow { self.with_expiry(rows).await? } else { rows };
        (self.start, self.start_inclusive, self.stands) = (last.to_vec(), false, stands);
        Ok((!rows.is_empty()).then_some(rows))
    }

    /// Asks how long each row has to live; leaves out those that are gone meanwhile.
    async fn with_expiry(&self, rows: Vec<ScanRow>) -> Result<Vec<ScanRow>, Error> {
        let ask = |row: ScanRow| async move {
            let ttl = self.table.ttl(&row.hash_key, &row.sort_key).await?;
            Ok::<_, Error>(ttl.map(|ttl| match ttl {
                Ttl::Never => ScanRow { expiry_seconds: 0, ..row },
                Ttl::Seconds(left) => ScanRow { expiry_seconds: now_seconds().saturating_add(left), ..row },
            }))
        };
        let rows = stream::iter(rows).map(ask).buffered(TTL_DEPTH);
        rows.try_filter_map(|row| std::future::ready(Ok(row))).try_collect().await
    }
}

impl Drop for Scanner {
    fn drop(&mut self) {
        if let Stands::Inside(context) = self.stands {
            self.table.post(self.place, &Request { rpc: Rpc::ClearScanner, argument: context, bytes: 0 });
        }
    }
}
