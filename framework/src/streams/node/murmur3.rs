//! The 128-bit Murmur3 hash by which a foreign-key join tells whether an answer is about the value that a row still has.
//! The same as Kafka Streams takes, so that the topics between both sides mean the same to both.

/// The seed of Kafka's hashes.
const SEED: u64 = 104_729;

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

/// The hash of `data`, as it lies in records: two big-endian numbers.
pub(super) fn hash128(data: &[u8]) -> [u8; 16] {
    let (high, low) = seeded(data, SEED);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high.to_be_bytes());
    bytes[8..].copy_from_slice(&low.to_be_bytes());
    bytes
}

fn seeded(data: &[u8], seed: u64) -> (u64, u64) {
    let (mut h1, mut h2) = (seed, seed);
    let mut blocks = data.chunks_exact(16);
    for block in &mut blocks {
        h1 ^= mix1(word(&block[..8]));
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mix2(word(&block[8..]));
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let rest = blocks.remainder();
    let (first, second) = rest.split_at(rest.len().min(8));
    h2 ^= mix2(word(second));
    h1 ^= mix1(word(first));
    h1 ^= data.len() as u64;
    h2 ^= data.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    (h1, h2) = (finish(h1), finish(h2));
    h1 = h1.wrapping_add(h2);
    (h1, h2.wrapping_add(h1))
}

/// Up to 8 bytes as a little-endian number.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn mix1(word: u64) -> u64 {
    word.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

fn mix2(word: u64) -> u64 {
    word.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

fn finish(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the Java client's own test expects for the seed 123.
    #[test]
    fn s1_6_hashes_are_kafkas() {
        let cases: [(&str, i64, i64); 6] = [
            ("21", 5_857_341_059_704_281_894, -5_288_187_638_297_930_763),
            ("foobar", -351_361_463_397_418_609, 8_959_716_011_862_540_668),
            ("a-little-bit-long-string", 8_836_256_500_583_638_442, -198_172_363_548_498_523),
            ("a-little-bit-longer-string", 1_838_346_159_335_108_511, 8_794_688_210_320_490_705),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -4_024_021_876_037_397_259,
                -1_482_317_706_335_141_238,
            ),
            ("abc", 1_489_494_923_063_836_066, -5_440_978_547_625_122_829),
        ];
        for (text, high, low) in cases {
            assert_eq!(seeded(text.as_bytes(), 123), (high as u64, low as u64), "{text}");
        }
    }

    #[test]
    fn the_bytes_are_big_endian() {
        let (high, low) = seeded(b"abc", SEED);
        assert_eq!(hash128(b"abc"), *[high.to_be_bytes(), low.to_be_bytes()].as_flattened());
    }
}
