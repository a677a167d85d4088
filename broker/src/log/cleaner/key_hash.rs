//! A hash of 128 bits for keys: SipHash-2-4 with a secret, so that nobody can make two keys that are taken for one.

/// What a key is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyHash(pub(super) u64, pub(super) u64);

/// The secret that hashes are made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHasher {
    secret: [u64; 2],
}

struct State {
    v: [u64; 4],
}

impl State {
    fn rounds(&mut self, count: u32) {
        let [mut v0, mut v1, mut v2, mut v3] = self.v;
        for _ in 0..count {
            v0 = v0.wrapping_add(v1);
            v1 = v1.rotate_left(13) ^ v0;
            v0 = v0.rotate_left(32);
            v2 = v2.wrapping_add(v3);
            v3 = v3.rotate_left(16) ^ v2;
            v0 = v0.wrapping_add(v3);
            v3 = v3.rotate_left(21) ^ v0;
            v2 = v2.wrapping_add(v1);
            v1 = v1.rotate_left(17) ^ v2;
            v2 = v2.rotate_left(32);
        }
        self.v = [v0, v1, v2, v3];
    }

    fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.rounds(2);
        self.v[0] ^= word;
    }

    fn sum(&self) -> u64 {
        self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3]
    }
}

impl KeyHasher {
    pub(crate) fn new(secret: [u64; 2]) -> Self {
        Self { secret }
    }

    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        let [k0, k1] = self.secret;
        let mut state = State {
            v: [
                k0 ^ 0x736f_6d65_7073_6575,
                k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
                k0 ^ 0x6c79_6765_6e65_7261,
                k1 ^ 0x7465_6462_7974_6573,
            ],
        };
        let (words, rest) = key.as_chunks::<8>();
        words.iter().for_each(|word| state.word(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        last[7] = key.len() as u8;
        state.word(u64::from_le_bytes(last));
        state.v[2] ^= 0xee;
        state.rounds(4);
        let first = state.sum();
        state.v[1] ^= 0xdd;
        state.rounds(4);
        KeyHash(first, state.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(len: u8) -> [u8; 16] {
        let secret = [
            u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7]),
            u64::from_le_bytes([8, 9, 10, 11, 12, 13, 14, 15]),
        ];
        let key: Vec<u8> = (0..len).collect();
        let KeyHash(first, second) = KeyHasher::new(secret).hash(&key);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[8..].copy_from_slice(&second.to_le_bytes());
        bytes
    }

    /// The first two of the vectors that the hash's authors give for 128 bits.
    #[test]
    fn hashes_are_those_of_siphash() {
        let none =
            [0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93];
        let one =
            [0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45];
        assert_eq!((hashed(0), hashed(1)), (none, one));
    }

    #[test]
    fn keys_of_all_lengths_differ() {
        let mut seen: Vec<[u8; 16]> = (0..=255).map(hashed).collect();
        let zeros = |len: usize| KeyHasher::new([1, 2]).hash(&vec![0; len]);
        assert!((0..40).all(|len| zeros(len) != zeros(len + 1)), "a length is part of a key");
        assert_ne!(KeyHasher::new([1, 2]).hash(b"a"), KeyHasher::new([1, 3]).hash(b"a"));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 256);
    }
}
