//! Generated values for tests: what the derive (with its feature `arbitrary`) builds its generators
//! from. Hidden, not an API.

use bytes::Bytes;

use crate::primitives::{Records, UnknownTags, Utf8Bytes, Uuid};

/// A small random source (xorshift), and the version that values are generated for.
#[derive(Debug)]
pub struct Gen {
    state: u64,
    version: i16,
    flexible: bool,
}

impl Gen {
    /// The same seed gives the same values.
    pub fn new(seed: u64, version: i16, flexible: bool) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, version, flexible }
    }

    /// The version that values are for.
    pub fn version(&self) -> i16 {
        self.version
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.bits() >> 16) % bound
    }
}

/// A type that values can be generated for.
pub trait Arbitrary: Sized {
    /// A value that the generator's version can carry without loss.
    fn arbitrary(g: &mut Gen) -> Self;
}

/// A nullable field: null sometimes, where the version allows it.
pub fn option<T: Arbitrary>(nullable: bool, g: &mut Gen) -> Option<T> {
    if nullable && g.below(3) == 0 { None } else { Some(T::arbitrary(g)) }
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Arbitrary for $type {
            fn arbitrary(g: &mut Gen) -> Self {
                match g.below(4) {
                    0 => g.bits() as $type,
                    1 => 0,
                    2 => !0,
                    _ => g.below(300) as $type,
                }
            }
        }
    )*};
}

integers!(i8 i16 i32 i64 u16 u32);

impl Arbitrary for bool {
    fn arbitrary(g: &mut Gen) -> Self {
        g.below(2) == 0
    }
}

impl Arbitrary for f64 {
    fn arbitrary(g: &mut Gen) -> Self {
        g.below(1 << 40) as f64 / 1024.0
    }
}

impl Arbitrary for Uuid {
    fn arbitrary(g: &mut Gen) -> Self {
        Self::from_u128(u128::from(g.bits()) << 64 | u128::from(g.bits()))
    }
}

impl Arbitrary for Utf8Bytes {
    fn arbitrary(g: &mut Gen) -> Self {
        let len = if g.below(12) == 0 { 200 } else { g.below(9) };
        (0..len)
            .map(|_| ['a', 'Z', '-', '.', 'ß', '雪', '\u{0}'][g.below(7) as usize])
            .collect::<String>()
            .into()
    }
}

impl Arbitrary for Bytes {
    fn arbitrary(g: &mut Gen) -> Self {
        let len = if g.below(12) == 0 { 200 } else { g.below(20) };
        (0..len).map(|_| g.bits() as u8).collect::<Vec<u8>>().into()
    }
}

impl Arbitrary for Records {
    fn arbitrary(g: &mut Gen) -> Self {
        Self::Bytes(Bytes::arbitrary(g))
    }
}

impl<T: Arbitrary> Arbitrary for Vec<T> {
    fn arbitrary(g: &mut Gen) -> Self {
        (0..g.below(4)).map(|_| T::arbitrary(g)).collect()
    }
}

impl Arbitrary for UnknownTags {
    fn arbitrary(g: &mut Gen) -> Self {
        if !g.flexible || g.below(4) != 0 {
            return Self::NONE;
        }
        // Above every tag that a message defines.
        let fields: Vec<_> =
            (0..1 + g.below(2)).map(|_| (1000 + g.below(1 << 20) as u32, Bytes::arbitrary(g))).collect();
        Self::from_fields(fields.iter().map(|(tag, content)| (*tag, &**content)))
    }
}
