//! What all tables of a node share: block cache, memory for writes, background threads, write rate.
//!
//! One [`TableShared`] per process. RocksDB's thread pool is one per process too: it is started by the first
//! `TableShared` and has the CPUs which that one was given.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Env, InfoLogger, LogLevel, Options, WriteBufferManager};

use super::filter::ExpiryFilterFactory;
use super::layout::prefix_extractor;
use super::{Inner, Table, TableError};
use crate::affinity::{BACKGROUND_NICENESS, Placement};

/// Sizes and counts that hold for all tables of a node. The defaults are Pegasus's where it has one; small machines
/// lower the two memory budgets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedOptions {
    /// Uncompressed blocks kept in memory, for all tables together.
    pub block_cache_bytes: usize,
    /// Memory for rows not yet in files, for all tables together. Near it, tables flush early; a write never waits
    /// for it. See [`TableShared::memory_pressure`].
    pub write_buffer_bytes_total: usize,
    /// Rows not yet in files that make one table start a flush. At least 64 KiB.
    pub write_buffer_bytes: usize,
    /// Write buffers one table may have, the one being filled included; with that many full, writes stall. At least 2.
    pub write_buffer_count: i32,
    /// RocksDB's threads: a quarter of them (at least one) flushes, the rest compacts. At least 2.
    pub background_threads: i32,
    /// CPUs of those threads; `None` leaves them where the caller may run.
    pub background_cpus: Option<Vec<usize>>,
    /// Bytes a second that flushes and compactions may write; 0 means no limit.
    pub write_rate_bytes_per_second: u64,
    /// Files in level 0 that start a compaction.
    pub level0_compaction_files: i32,
    /// Files in level 0 that slow writes down.
    pub level0_slowdown_files: i32,
    /// Files in level 0 that stop writes.
    pub level0_stop_files: i32,
    /// Size of level 1; each further level is ten times larger.
    pub level1_bytes: u64,
    /// Size of a file.
    pub file_bytes: u64,
}

impl Default for SharedOptions {
    fn default() -> SharedOptions {
        SharedOptions {
            block_cache_bytes: 512 << 20,
            write_buffer_bytes_total: 512 << 20,
            write_buffer_bytes: 64 << 20,
            write_buffer_count: 4,
            background_threads: 4,
            background_cpus: None,
            write_rate_bytes_per_second: 500 << 20,
            level0_compaction_files: 4,
            level0_slowdown_files: 30,
            level0_stop_files: 60,
            level1_bytes: 640 << 20,
            file_bytes: 64 << 20,
        }
    }
}

impl SharedOptions {
    /// Checks bounds and relations; the text names the option at fault.
    pub fn validate(&self) -> Result<(), TableError> {
        let complain = |text: &str| Err(TableError::Options(text.to_owned()));
        if self.write_buffer_bytes < 64 << 10 {
            return complain("write_buffer_bytes must be at least 65536");
        }
        if self.write_buffer_bytes_total < self.write_buffer_bytes {
            return complain("write_buffer_bytes_total must be at least write_buffer_bytes");
        }
        if self.write_buffer_count < 2 {
            return complain("write_buffer_count must be at least 2");
        }
        if !(2..=256).contains(&self.background_threads) {
            return complain("background_threads must be 2 to 256");
        }
        if self.level0_compaction_files < 2
            || self.level0_slowdown_files < self.level0_compaction_files
            || self.level0_stop_files < self.level0_slowdown_files
        {
            return complain(
                "level0_compaction_files (at least 2), level0_slowdown_files and level0_stop_files must not descend",
            );
        }
        if self.file_bytes < 64 << 10 || self.level1_bytes < self.file_bytes {
            return complain("file_bytes must be at least 65536 and level1_bytes at least file_bytes");
        }
        Ok(())
    }
}

/// What the node's tables share right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedStatistics {
    /// Bytes in the block cache.
    pub block_cache_bytes: u64,
    /// Bytes of the block cache that readers hold on to.
    pub block_cache_pinned_bytes: u64,
    /// Bytes of rows not yet in files.
    pub write_buffer_bytes: u64,
    /// Open tables.
    pub tables: u64,
}

/// A handle to what the node's tables share. Clones share it.
#[derive(Clone)]
pub struct TableShared {
    inner: Arc<SharedInner>,
}

struct SharedInner {
    settings: SharedOptions,
    /// Every table is opened with these.
    rocksdb: Options,
    block_cache: Cache,
    write_buffers: WriteBufferManager,
    tables: Mutex<Vec<Weak<Inner>>>,
}

impl TableShared {
    /// Makes caches and starts RocksDB's threads.
    pub fn new(settings: SharedOptions) -> Result<TableShared, TableError> {
        settings.validate()?;
        let block_cache = Cache::new_hyper_clock_cache(settings.block_cache_bytes, 0);
        // Waiting for memory would block a serving core; tables over the budget flush instead.
        let write_buffers = WriteBufferManager::new_write_buffer_manager(settings.write_buffer_bytes_total, false);
        let environment = start_threads(&settings)?;
        let mut rocksdb = base_options(&settings);
        rocksdb.set_env(&environment);
        rocksdb.set_write_buffer_manager(&write_buffers);
        rocksdb.set_block_based_table_factory(&block_options(&block_cache));
        let tables = Mutex::new(Vec::new());
        Ok(TableShared { inner: Arc::new(SharedInner { settings, rocksdb, block_cache, write_buffers, tables }) })
    }

    /// The options it was made with.
    pub fn options(&self) -> &SharedOptions {
        &self.inner.settings
    }

    /// What is in use now.
    pub fn statistics(&self) -> SharedStatistics {
        SharedStatistics {
            block_cache_bytes: self.inner.block_cache.get_usage() as u64,
            block_cache_pinned_bytes: self.inner.block_cache.get_pinned_usage() as u64,
            write_buffer_bytes: self.inner.write_buffers.get_usage() as u64,
            tables: self.known_tables().iter().filter(|known| known.strong_count() > 0).count() as u64,
        }
    }

    /// The table to flush next when rows not yet in files use more than three quarters of their budget, else
    /// `None`. Over the budget RocksDB flushes the table that is *written to*, however little it holds; so the owner
    /// asks this every second or so, in a pool, and flushes the table it gets, which is the one that holds most.
    pub fn memory_pressure(&self) -> Option<Table> {
        let budget = self.inner.settings.write_buffer_bytes_total;
        if self.inner.write_buffers.get_usage() < budget / 4 * 3 {
            return None;
        }
        self.open_tables().into_iter().max_by_key(Table::write_buffer_bytes)
    }

    pub(super) fn rocksdb(&self) -> &Options {
        &self.inner.rocksdb
    }

    pub(super) fn register(&self, table: &Table) {
        let mut tables = self.known_tables();
        tables.retain(|known| known.strong_count() > 0);
        tables.push(Arc::downgrade(&table.inner));
    }

    fn open_tables(&self) -> Vec<Table> {
        self.known_tables().iter().filter_map(|known| known.upgrade().map(|inner| Table { inner })).collect()
    }

    fn known_tables(&self) -> MutexGuard<'_, Vec<Weak<Inner>>> {
        self.inner.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the background threads on their CPUs. New threads inherit mask and niceness of the thread that starts them,
/// so a helper takes both, starts them, and ends; the caller's own are never touched.
fn start_threads(settings: &SharedOptions) -> Result<Env, TableError> {
    // A flush or a compaction must not take the CPU from those who serve.
    let placement = Placement { cpus: settings.background_cpus.clone(), niceness: BACKGROUND_NICENESS };
    let flushing = (settings.background_threads / 4).max(1);
    let compacting = settings.background_threads - flushing;
    let start = move || {
        placement.take().map_err(|error| format!("background_cpus: {error}"))?;
        let mut environment = Env::new().map_err(|error| error.to_string())?;
        environment.set_high_priority_background_threads(flushing);
        environment.set_low_priority_background_threads(compacting);
        Ok(environment)
    };
    let helper = thread::Builder::new()
        .name("rocksdb-start".to_owned())
        .spawn(start)
        .map_err(|error| TableError::Options(format!("background threads cannot be started: {error}")))?;
    let result: Result<Env, String> = helper.join().unwrap_or_else(|_| Err("the starting thread panicked".to_owned()));
    result.map_err(TableError::Options)
}

fn base_options(settings: &SharedOptions) -> Options {
    let mut options = Options::default();
    // Exactly the threads started above: opening a table then starts no more.
    options.set_max_background_jobs(settings.background_threads);
    options.set_max_file_opening_threads(2);
    set_memory(&mut options, settings);
    set_levels(&mut options, settings);
    set_quiet(&mut options);
    options.set_paranoid_checks(true);
    // All files stay open, so that a read in the cache never opens one.
    options.set_max_open_files(-1);
    options.set_skip_stats_update_on_db_open(true);
    options.set_avoid_unnecessary_blocking_io(true);
    // Hand dirty pages to the disk as they come, so that the sync at the end of a file is short.
    options.set_bytes_per_sync(1 << 20);
    if let Ok(rate) = i64::try_from(settings.write_rate_bytes_per_second)
        && rate > 0
    {
        options.set_ratelimiter(rate, 100_000, 10);
    }
    options.set_prefix_extractor(prefix_extractor());
    options.set_compaction_filter_factory(ExpiryFilterFactory);
    options
}

fn set_memory(options: &mut Options, settings: &SharedOptions) {
    options.set_write_buffer_size(settings.write_buffer_bytes);
    options.set_max_write_buffer_number(settings.write_buffer_count);
    // Small first steps, so that hundreds of almost idle tables cost little.
    options.set_arena_block_size((settings.write_buffer_bytes / 8).min(256 << 10));
    // One writer per table: nothing to do in parallel, and no bookkeeping for it.
    options.set_allow_concurrent_memtable_write(false);
    options.set_manifest_preallocation_size(128 << 10);
}

fn set_levels(options: &mut Options, settings: &SharedOptions) {
    options.set_num_levels(LEVELS);
    options.set_level_zero_file_num_compaction_trigger(settings.level0_compaction_files);
    options.set_level_zero_slowdown_writes_trigger(settings.level0_slowdown_files);
    options.set_level_zero_stop_writes_trigger(settings.level0_stop_files);
    options.set_max_bytes_for_level_base(settings.level1_bytes);
    options.set_max_bytes_for_level_multiplier(10.0);
    options.set_target_file_size_base(settings.file_bytes);
    // The last level is filled first and the ones above follow its size: less space for overwritten rows.
    options.set_level_compaction_dynamic_level_bytes(true);
    let mut compression = [DBCompressionType::Lz4; LEVELS as usize];
    compression[0] = DBCompressionType::None;
    compression[1] = DBCompressionType::None;
    options.set_compression_per_level(&compression);
}

/// Nothing is written by the way: no statistics, and no info log file. Warnings come on whatever thread runs into
/// them, also a serving one, so they are told at debug level; what they warn of is in the statistics.
fn set_quiet(options: &mut Options) {
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(1);
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, |level, text| match level {
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "rocksdb", "{text}"),
        LogLevel::Warn => tracing::debug!(target: "rocksdb", "{text}"),
        LogLevel::Debug | LogLevel::Info | LogLevel::Header => tracing::trace!(target: "rocksdb", "{text}"),
    }));
}

fn block_options(cache: &Cache) -> BlockBasedOptions {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_bloom_filter(10.0, false);
    // Indexes and filters are read when a file is opened and stay outside the cache: they can never be the block
    // that is missing. They cost about 1.5 bytes a row.
    blocks.set_cache_index_and_filter_blocks(false);
    blocks
}

const LEVELS: i32 = 6;
