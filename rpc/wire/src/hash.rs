//! Where a row lives: the Pegasus partition hash, and the core that owns a partition.

use crate::ids::PartitionId;

/// CRC-64 polynomial 0xad93d23594c93659, bit-reflected.
const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;

/// Eight tables, so that eight bytes are folded in at a time.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0u64; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut level = 1;
    while level < 8 {
        let mut byte = 0;
        while byte < 256 {
            let previous = tables[level - 1][byte];
            tables[level][byte] = (previous >> 8) ^ tables[0][(previous & 0xFF) as usize];
            byte += 1;
        }
        level += 1;
    }
    tables
}

fn crc64(bytes: &[u8]) -> u64 {
    let mut crc = u64::MAX;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0u8; 8];
        word.copy_from_slice(chunk);
        let mixed = crc ^ u64::from_le_bytes(word);
        crc = 0;
        for (level, byte) in mixed.to_le_bytes().into_iter().enumerate() {
            crc ^= TABLES[7 - level][byte as usize];
        }
    }
    for byte in chunks.remainder() {
        crc = (crc >> 8) ^ TABLES[0][((crc as u8) ^ byte) as usize];
    }
    !crc
}

/// Pegasus's partition hash: CRC-64 of the hash key, or of the sort key when the hash key is empty.
pub fn partition_hash(hash_key: &[u8], sort_key: &[u8]) -> u64 {
    crc64(if hash_key.is_empty() { sort_key } else { hash_key })
}

/// The partition of a table that holds rows of `hash_key`. `partition_count` must not be zero.
pub fn partition_index(hash_key: &[u8], sort_key: &[u8], partition_count: u32) -> u32 {
    (partition_hash(hash_key, sort_key) % u64::from(partition_count)) as u32
}

/// The core that owns a partition on a node with `cores` executors. `cores` must not be zero.
///
/// Consecutive partitions of a table go to consecutive cores; tables start at different cores, so that many
/// one-partition tables spread as well.
pub fn owner_core(partition: PartitionId, cores: u16) -> u16 {
    let position = u64::from(partition.table.0) + u64::from(partition.index);
    (position % u64::from(cores)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pegasus_vectors() {
        let vectors: [(&[u8], u64); 7] = [
            (b"", 0),
            (b"123456789", 0xae8b_1486_0a79_9888),
            (b"hello", 0x3377_8570_0652_4257),
            (b"test", 0xf9bb_bece_feba_b143),
            (b"h1", 0xaae1_fd17_e635_e4da),
            (b"\0", 0xd5da_5047_efec_8728),
            (b"hashkey", 0x1299_d9b0_6672_773a),
        ];
        for (input, expected) in vectors {
            assert_eq!(crc64(input), expected, "{input:?}");
        }
        assert_eq!(TABLES[0][1], 0x7f6e_f0c8_3035_8979);
    }

    #[test]
    fn an_empty_hash_key_hashes_the_sort_key() {
        assert_eq!(partition_hash(b"", b"hello"), partition_hash(b"hello", b"other"));
        // The example of the Pegasus fact file: "hello" of a table with 8 partitions is in partition 7.
        assert_eq!(partition_index(b"hello", b"sk", 8), 7);
    }

    #[test]
    fn cores_share_the_partitions_evenly() {
        for cores in 1..=5u16 {
            let mut owned = vec![0u32; usize::from(cores)];
            for index in 0..60 {
                owned[usize::from(owner_core(PartitionId::new(3, index), cores))] += 1;
            }
            assert!(owned.iter().all(|&count| count == 60 / u32::from(cores)), "{owned:?}");
        }
    }

    proptest! {
        #[test]
        fn eight_at_a_time_equals_one_at_a_time(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut crc = u64::MAX;
            for byte in &bytes {
                crc = (crc >> 8) ^ TABLES[0][((crc as u8) ^ byte) as usize];
            }
            prop_assert_eq!(crc64(&bytes), !crc);
        }
    }
}
