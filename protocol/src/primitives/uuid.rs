//! `Uuid`: ids of topics, directories, clusters and members, in the two spellings that Kafka has for them.

use std::fmt;
use std::str::FromStr;

/// 16 bytes, in network order. Shown as Kafka shows ids: base64 with the URL alphabet, without padding, 22 characters.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// All zero, which the protocol uses for "no id".
    pub const ZERO: Self = Self([0; 16]);

    /// From bytes in network order.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// From a number, most significant byte first.
    pub const fn from_u128(value: u128) -> Self {
        Self(value.to_be_bytes())
    }

    /// A random id (version 4): 122 of these bits and the six that say so.
    pub const fn from_random(bits: u128) -> Self {
        const VERSION: u32 = 76;
        const VARIANT: u32 = 62;
        Self::from_u128(bits & !(0xf << VERSION) & !(0x3 << VARIANT) | 0x4 << VERSION | 0x2 << VARIANT)
    }

    /// The other usual spelling, five groups of hexadecimal digits: Kafka has it in the ids of group members.
    pub fn hyphenated(&self) -> impl fmt::Display + use<> {
        Hyphenated(u128::from_be_bytes(self.0))
    }

    /// The bytes in network order.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether this is [`Uuid::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

/// [`Uuid::hyphenated`]
struct Hyphenated(u128);

impl fmt::Display for Hyphenated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = |shift: u32, digits: u32| (self.0 >> shift) & ((1 << (4 * digits)) - 1);
        let (time, clock) = (group(96, 8), group(48, 4));
        write!(f, "{time:08x}-{:04x}-{:04x}-{clock:04x}-{:012x}", group(80, 4), group(64, 4), group(0, 12))
    }
}

impl From<[u8; 16]> for Uuid {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const TEXT_LEN: usize = 22;

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 128 bits are 21 digits of 6 bits and one digit whose lower four bits are zero.
        let bits = u128::from_be_bytes(self.0);
        for digit in 0..TEXT_LEN {
            let index = match digit {
                21 => bits << 4,
                _ => bits >> (122 - 6 * digit),
            } & 0x3f;
            fmt::Write::write_char(f, char::from(ALPHABET[index as usize]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a Kafka id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 22 characters of A-Z, a-z, 0-9, `-` and `_`")]
pub struct ParseUuidError;

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, ParseUuidError> {
        if text.len() != TEXT_LEN {
            return Err(ParseUuidError);
        }
        let mut bits = 0_u128;
        for (digit, byte) in text.bytes().enumerate() {
            let value = ALPHABET.iter().position(|&b| b == byte).ok_or(ParseUuidError)? as u128;
            bits = match digit {
                21 => bits << 2 | value >> 4,
                _ => bits << 6 | value,
            };
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_as_kafka_prints_it() {
        // Pairs as Kafka's tools print them: the zero id, and the id of the metadata topic, which is 1.
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(Uuid::from_u128(1).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(Uuid::from_u128(u128::MAX).to_string(), "_____________________w");
    }

    #[test]
    fn random_ids_say_that_they_are() {
        assert_eq!(Uuid::from_random(0).hyphenated().to_string(), "00000000-0000-4000-8000-000000000000");
        assert_eq!(
            Uuid::from_random(u128::MAX).hyphenated().to_string(),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
        let id = Uuid::from_u128(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(id.hyphenated().to_string(), "01234567-89ab-cdef-0011-223344556677");
    }

    #[test]
    fn text_round_trip() {
        for n in [0, 1, 0x0123_4567_89ab_cdef_0011_2233_4455_6677, u128::MAX, u128::MAX - 0xff] {
            let id = Uuid::from_u128(n);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!("short".parse::<Uuid>(), Err(ParseUuidError));
        assert_eq!("AAAAAAAAAAAAAAAAAAAAA=".parse::<Uuid>(), Err(ParseUuidError));
    }
}
