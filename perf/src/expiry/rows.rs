//! The rows that expire: written in every way that gives a time to live, beside rows that stay.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use pegasus_client::{
    Check, CheckAndSet, CompareExchange, Error, Table, TtlChange, WriteBatch, expiry_from_now, now_seconds,
};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use crate::expiry::judge::Expiry;
use crate::failure::Failure;

/// A hash key with a row that expires and one that does not.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The hash key.
    pub hash_key: String,
    /// How the row that expires was written.
    pub way: &'static str,
    /// When it expires.
    pub expiry: Expiry,
}

/// The sort key of the row that expires.
pub const BRIEF: &str = "brief";
/// The sort key of the row that stays.
pub const LASTING: &str = "lasting";

/// The ways to write a row that expires.
pub const WAYS: [&str; 7] =
    ["set", "multi_set", "batch of writes", "batch_set", "incr", "check_and_set", "compare_exchange"];

/// Writes so many pairs whose brief rows live for `ttl_seconds`.
pub async fn write(table: &Table, pairs: u32, ttl_seconds: u32) -> Result<Vec<Pair>, Failure> {
    let write = |number: u32| async move {
        let way = WAYS[number as usize % WAYS.len()];
        let hash_key = format!("pair{number}");
        let value = value_of(number);
        table.set(&hash_key, LASTING, &value[..LASTING_BYTES]).await?;
        let first = now_seconds();
        write_brief(table, &hash_key, way, &value, ttl_seconds).await?;
        let expiry = Expiry { first: first + ttl_seconds, last: now_seconds() + ttl_seconds };
        Ok::<Pair, Error>(Pair { hash_key, way, expiry })
    };
    let written = stream::iter(0..pairs).map(write).buffered(WRITES_AT_ONCE).try_collect().await;
    written.map_err(Failure::at("write rows that expire"))
}

async fn write_brief(table: &Table, key: &str, way: &str, value: &Bytes, ttl_seconds: u32) -> Result<(), Error> {
    match way {
        "set" => table.set_with_ttl(key, BRIEF, value, ttl_seconds).await,
        "multi_set" => table.multi_set_with_ttl(key, &[(BRIEF, value)], ttl_seconds).await,
        "batch of writes" => {
            let mut batch = WriteBatch::new();
            batch.delete(BRIEF).put_until(BRIEF, value, expiry_from_now(ttl_seconds));
            table.write(key, &batch).await
        }
        "batch_set" => table.batch_set(&[(key, BRIEF, value)], ttl_seconds).await.into_iter().collect(),
        "incr" => table.incr_with(key, BRIEF, 41, TtlChange::Set(ttl_seconds)).await.map(|_| ()),
        "check_and_set" => {
            let request = CheckAndSet {
                check_sort_key: LASTING.as_bytes(),
                check: Check::Exist,
                operand: b"",
                set_sort_key: BRIEF.as_bytes(),
                value,
                ttl_seconds,
                return_value: false,
            };
            table.check_and_set(key, &request).await.map(|_| ())
        }
        _ => {
            let outcome = table.compare_exchange(key, BRIEF, None, value, ttl_seconds).await?;
            debug_assert_eq!(outcome, CompareExchange::Exchanged);
            Ok(())
        }
    }
}

/// Bytes that do not compress, so that the size of files says something.
fn value_of(number: u32) -> Bytes {
    let mut value = vec![0; BRIEF_BYTES];
    SmallRng::seed_from_u64(u64::from(number)).fill_bytes(&mut value);
    value.into()
}

/// Increments the brief rows that hold a number, long after their time: each has to begin anew. What is wrong.
pub async fn increment_after(table: &Table, pairs: &[Pair]) -> Vec<String> {
    let mut problems = Vec::new();
    for Pair { hash_key, .. } in pairs.iter().filter(|pair| pair.way == "incr") {
        match table.incr(hash_key, BRIEF, 1).await {
            Ok(1) => {}
            Ok(number) => problems.push(format!("an increment of an expired row of {hash_key} gave {number}")),
            Err(error) => problems.push(format!("an increment of an expired row of {hash_key} failed: {error}")),
        }
        // It lives again, for ever.
        if let Err(error) = table.del(hash_key, BRIEF).await {
            problems.push(format!("a row of {hash_key} cannot be deleted: {error}"));
        }
    }
    problems
}

/// Length of the values of brief rows, but for the numbers.
pub const BRIEF_BYTES: usize = 1000;
/// Length of the values that stay.
pub const LASTING_BYTES: usize = 100;
const WRITES_AT_ONCE: usize = 64;
