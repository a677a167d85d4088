//! The codecs: round trips, every framing that peers send, bombs, lies, truncation, and bytes of any kind.

#![allow(clippy::unwrap_used, reason = "test helpers outside of test functions fail by panicking")]

use std::io::Write;

use klamm_protocol::compression::{Compression, CompressionError, compress, decompress, decompress_into};
use proptest::prelude::*;

const MIB: usize = 1 << 20;
const REAL_CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn compressed(codec: Compression, input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    compress(codec, input, &mut out).unwrap();
    out
}

/// Text-like bytes that compress, over several blocks of every codec.
fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * i / 7 + i / 1000) as u8 & 0x3F).collect()
}

fn is_too_large(result: &Result<Vec<u8>, CompressionError>) -> bool {
    matches!(result, Err(CompressionError::TooLarge { .. }))
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..2000),
        // Runs: the shape that compresses, up to several blocks.
        proptest::collection::vec((any::<u8>(), 1usize..20_000), 0..20)
            .prop_map(|runs| runs.into_iter().flat_map(|(byte, len)| vec![byte; len]).collect()),
        (0usize..200_000).prop_map(text),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn round_trip(data in data(), codec in 0u8..5, front in proptest::collection::vec(any::<u8>(), 0..10)) {
        let codec = Compression::from_id(codec).unwrap();
        let mut out = front.clone();
        compress(codec, &data, &mut out).unwrap();
        let (kept, body) = out.split_at(front.len());
        prop_assert_eq!(kept, &front);
        // At the cap, and one below it.
        let whole = decompress(codec, body, data.len()).unwrap();
        prop_assert_eq!(&whole, &data);
        if let Some(below) = data.len().checked_sub(1) {
            prop_assert!(is_too_large(&decompress(codec, body, below)));
        }
        // A used buffer leaves no trace.
        let mut reused = vec![0xAA; 100_000];
        decompress_into(codec, body, data.len(), &mut reused).unwrap();
        prop_assert_eq!(reused, data);
    }

    #[test]
    fn any_bytes_are_survived(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), codec in 0u8..5, cap in 0usize..5000,
    ) {
        let codec = Compression::from_id(codec).unwrap();
        let mut out = Vec::new();
        if decompress_into(codec, &bytes, cap, &mut out).is_ok() {
            prop_assert!(out.len() <= cap);
        }
    }

    /// Damage behind a sound beginning goes deeper than noise. Contexts kept by the thread must
    /// be none the worse for it.
    #[test]
    fn damaged_bytes_are_survived(
        data in data(),
        codec in 1u8..5,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cap in 0usize..300_000,
    ) {
        let codec = Compression::from_id(codec).unwrap();
        let sound = compressed(codec, &data);
        let mut broken = sound.clone();
        for (at, byte) in damage {
            broken[at.index(sound.len())] = byte;
        }
        let mut out = Vec::new();
        if decompress_into(codec, &broken, cap, &mut out).is_ok() {
            prop_assert!(out.len() <= cap);
        }
        prop_assert!(out.capacity() <= cap + 128 * 1024, "{} bytes for a cap of {cap}", out.capacity());
        prop_assert_eq!(decompress(codec, &sound, data.len()), Ok(data));
    }
}

#[test]
fn a_bomb_costs_no_more_than_the_cap() {
    let zeros = vec![0; 64 * MIB];
    for codec in REAL_CODECS {
        let bomb = compressed(codec, &zeros);
        let mut out = Vec::new();
        let result = decompress_into(codec, &bomb, MIB, &mut out);
        assert_eq!(result, Err(CompressionError::TooLarge { codec, cap_bytes: MIB }));
        assert!(out.capacity() <= MIB + 1, "{codec}: {} bytes", out.capacity());
    }
}

/// A gzip stream and a zstd frame without a content size, as streaming encoders write them, say nothing of what comes.
#[test]
fn a_zstd_bomb_without_a_declared_size() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    let zeros = vec![0; MIB];
    for _ in 0..64 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let mut out = Vec::new();
    assert!(decompress_into(Compression::Zstd, &bomb, MIB, &mut out).is_err());
    assert!(out.capacity() <= MIB + 1, "{} bytes", out.capacity());
    assert_eq!(decompress(Compression::Zstd, &bomb, 64 * MIB).unwrap().len(), 64 * MIB);
}

/// Each of many tiny blocks may claim the frame's largest block size. Zeroing that much for each would take minutes.
#[test]
fn many_tiny_lz4_blocks_of_a_frame_with_huge_blocks() {
    let mut frame = lz4_frame(|info| info.block_size(lz4_flex::frame::BlockSize::Max4MB), b"");
    frame.truncate(frame.len() - 4);
    // A token and five literals: the shortest block of text.
    let block = [6, 0, 0, 0, 0x50, b'h', b'e', b'l', b'l', b'o'];
    for _ in 0..100_000 {
        frame.extend_from_slice(&block);
    }
    frame.extend_from_slice(&[0; 4]);
    assert_eq!(decompress(Compression::Lz4, &frame, 16 * MIB).unwrap(), b"hello".repeat(100_000));
}

#[test]
fn a_truncated_stream_is_never_silently_short() {
    let data = text(100_000);
    for codec in REAL_CODECS {
        let whole = compressed(codec, &data);
        for len in (0..whole.len()).step_by(97).chain(whole.len() - 12..whole.len()) {
            let result = decompress(codec, &whole[..len], MIB);
            // Snappy's framing has no end mark: between two blocks it may stop. The batch checksum
            // is what catches it there.
            if codec == Compression::Snappy
                && let Ok(short) = result
            {
                assert!(data.starts_with(&short) && short.len() % (32 << 10) == 0);
                continue;
            }
            assert!(result.is_err(), "{codec} cut to {len} of {}", whole.len());
        }
    }
}

#[test]
fn rubbish_behind_a_stream_is_an_error() {
    for codec in REAL_CODECS {
        let mut bytes = compressed(codec, b"some data");
        bytes.extend_from_slice(b"rubbish");
        assert!(decompress(codec, &bytes, MIB).is_err(), "{codec}");
    }
}

#[test]
fn snappy_is_written_in_the_java_framing() {
    let hex = compressed(Compression::Snappy, b"abcdefgh");
    let mut expect = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    // Block length 10: content length 8, a literal of 8 bytes.
    expect.extend_from_slice(b"\0\0\0\x0A\x08\x1Cabcdefgh");
    assert_eq!(hex, expect);
}

#[test]
fn raw_snappy_is_read() {
    for len in [0, 1, 15, 16, 17, 1000, 100_000] {
        let data = text(len);
        let raw = snap::raw::Encoder::new().compress_vec(&data).unwrap();
        assert_eq!(decompress(Compression::Snappy, &raw, len), Ok(data));
    }
}

#[test]
fn snappy_blocks_that_lie() {
    let header = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
    let check = |blocks: &[u8], cap: usize| {
        let mut out = Vec::new();
        let error =
            decompress_into(Compression::Snappy, &[header, blocks].concat(), cap, &mut out).unwrap_err();
        assert!(out.capacity() < MIB, "allocated {}", out.capacity());
        error
    };
    let truncated = CompressionError::Truncated { codec: Compression::Snappy };
    // The block's length exceeds what follows; by one; at the largest; and the length itself is cut.
    assert_eq!(check(b"\0\0\0\x0B\x08\x1Cabcdefgh", MIB), truncated);
    assert_eq!(check(b"\xFF\xFF\xFF\xFF\x08\x1Cabcdefgh", MIB), truncated);
    assert_eq!(check(b"\0\0\0", MIB), truncated);
    // The block claims 2 GiB, under a small cap and under one that would allow it.
    let too_large = CompressionError::TooLarge { codec: Compression::Snappy, cap_bytes: MIB };
    assert_eq!(check(b"\0\0\0\x06\x80\x80\x80\x80\x08\x00", MIB), too_large);
    assert!(matches!(
        check(b"\0\0\0\x06\x80\x80\x80\x80\x08\x00", usize::MAX),
        CompressionError::Corrupt { .. }
    ));
    // It claims one byte more or less than it holds.
    assert!(matches!(check(b"\0\0\0\x0A\x09\x1Cabcdefgh", MIB), CompressionError::Corrupt { .. }));
    assert!(matches!(check(b"\0\0\0\x0A\x07\x1Cabcdefgh", MIB), CompressionError::Corrupt { .. }));
    // The header is cut.
    assert_eq!(decompress(Compression::Snappy, &header[..12], MIB), Err(truncated));
}

/// The claim of a raw block is the cap's affair as well.
#[test]
fn raw_snappy_that_claims_too_much() {
    let claim = b"\xFF\xFF\xFF\xFF\x0F\x00";
    assert!(is_too_large(&decompress(Compression::Snappy, claim, MIB)));
    assert!(decompress(Compression::Snappy, claim, usize::MAX).is_err());
}

fn lz4_frame(
    info: impl FnOnce(lz4_flex::frame::FrameInfo) -> lz4_flex::frame::FrameInfo,
    data: &[u8],
) -> Vec<u8> {
    let info = info(lz4_flex::frame::FrameInfo::new());
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(data).unwrap();
    // A frame is begun by its first data; one without any still has header and end mark.
    encoder.finish().unwrap()
}

#[test]
fn lz4_frames_of_every_shape_are_read() {
    use lz4_flex::frame::{BlockMode, BlockSize};
    let sizes = [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB];
    for (len, size) in [(1, 0), (70_000, 0), (300_000, 0), (300_000, 1), (2_500_000, 2), (5_000_000, 3)] {
        let data = text(len);
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for checksums in [false, true] {
                let frame = lz4_frame(
                    |info| {
                        info.block_mode(mode)
                            .block_size(sizes[size])
                            .block_checksums(checksums)
                            .content_checksum(checksums)
                            .content_size(checksums.then_some(len as u64))
                    },
                    &data,
                );
                assert!(
                    decompress(Compression::Lz4, &frame, len).unwrap() == data,
                    "{len} {mode:?} {checksums}"
                );
                assert!(is_too_large(&decompress(Compression::Lz4, &frame, len - 1)));
            }
        }
    }
}

#[test]
fn lz4_checksums_are_checked() {
    let frame = lz4_frame(|info| info.block_checksums(true).content_checksum(true), &text(1000));
    for at in 4..frame.len() {
        let mut broken = frame.clone();
        broken[at] ^= 0x10;
        assert!(decompress(Compression::Lz4, &broken, MIB).is_err(), "byte {at} flipped");
    }
}

/// What we write is read by another reader, and has the header that Kafka's Java client insists on: version 1,
/// independent blocks, a correct checksum byte.
#[test]
fn lz4_frames_are_what_others_read() {
    for len in [0, 1, 12, 13, 65_535, 65_536, 65_537, 300_000] {
        let data = text(len);
        let frame = compressed(Compression::Lz4, &data);
        assert_eq!(frame[..7], [0x04, 0x22, 0x4D, 0x18, 0x60, 0x40, 0x82]);
        let mut read = Vec::new();
        std::io::copy(&mut lz4_flex::frame::FrameDecoder::new(&frame[..]), &mut read).unwrap();
        assert!(read == data, "{len}");
    }
    // Noise is stored, not blown up.
    let mut seed = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    })
    .take(100_000)
    .collect();
    let frame = compressed(Compression::Lz4, &noise);
    assert_eq!(frame.len(), 7 + 4 + 65_536 + 4 + (100_000 - 65_536) + 4);
    assert_eq!(decompress(Compression::Lz4, &frame, noise.len()), Ok(noise));
}

#[test]
fn joined_streams_are_read_as_one() {
    for codec in REAL_CODECS {
        if codec == Compression::Snappy {
            continue;
        }
        let joined =
            [compressed(codec, b"one, "), compressed(codec, b""), compressed(codec, b"two")].concat();
        assert_eq!(decompress(codec, &joined, MIB).as_deref(), Ok(&b"one, two"[..]), "{codec}");
    }
    // Skippable frames of lz4 and zstd share their magic numbers.
    for codec in [Compression::Lz4, Compression::Zstd] {
        let skippable = b"\x5A\x2A\x4D\x18\x03\0\0\0abc".to_vec();
        let joined = [compressed(codec, b"one"), skippable, compressed(codec, b"two")].concat();
        assert_eq!(decompress(codec, &joined, MIB).as_deref(), Ok(&b"onetwo"[..]), "{codec}");
    }
}

#[test]
fn names_and_numbers() {
    for codec in Compression::ALL {
        assert_eq!(Compression::from_id(codec.id()), Some(codec));
        assert_eq!(codec.name().parse(), Ok(codec));
    }
    assert_eq!(Compression::from_id(5), None);
    assert!("brotli".parse::<Compression>().is_err());
}

#[test]
fn levels_are_the_codecs_own() {
    use klamm_protocol::compression::compress_at;
    let input: Vec<u8> = (0..200_000_u32).flat_map(|n| (n.wrapping_mul(n) % 1_009).to_be_bytes()).collect();
    for codec in Compression::ALL {
        let Some(levels) = codec.levels() else {
            assert!(compress_at(codec, Some(1), &input, &mut Vec::new()).is_err(), "{codec} has none");
            continue;
        };
        let size = |level| {
            let mut out = Vec::new();
            compress_at(codec, level, &input, &mut out).unwrap();
            assert_eq!(decompress(codec, &out, input.len()).unwrap(), input);
            out.len()
        };
        let default = size(None);
        assert!(size(Some(*levels.end())) < size(Some(1)), "{codec}");
        assert_eq!(size(None), default, "{codec}: a level does not stay");
        for wrong in [levels.start() - 1, levels.end() + 1] {
            assert!(compress_at(codec, Some(wrong), &input, &mut Vec::new()).is_err(), "{codec} {wrong}");
        }
    }
}
