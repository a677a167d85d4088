//! What the mechanisms of SASL have in common (pure).

/// A login by one mechanism, from its first message to its end. The client speaks first.
pub(super) trait Mechanism: Send {
    /// The client's first message.
    fn first(&mut self) -> Result<Vec<u8>, LoginError>;

    /// The answer to a message of the broker; `None` when nothing is left to say.
    fn answer(&mut self, challenge: &[u8]) -> Result<Option<Vec<u8>>, LoginError>;

    /// Whether the broker has proved what the mechanism lets it prove. Without that a login is none, whatever the
    /// broker says.
    fn is_complete(&self) -> bool;

    /// Words of the broker's, without any secret that they repeat.
    fn redact(&self, words: &str) -> String;
}

/// Why a login failed on the client's side. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LoginError {
    #[error("the broker's message is none of the mechanism's: {0}")]
    Malformed(&'static str),
    #[error(
        "the broker's nonce is not the client's nonce with an addition: an answer to somebody else's login"
    )]
    Nonce,
    #[error("the broker asks for {iterations} iterations; {least} to {most} are accepted")]
    Iterations { iterations: u64, least: u32, most: u32 },
    #[error("the broker does not know the password itself: it may be an impostor")]
    ServerSignature,
    #[error("the broker refused: {0}")]
    Refused(String),
    #[error("the broker goes on after the end of the login")]
    Endless,
    #[error("no random numbers can be had: {0}")]
    NoRandomness(String),
    #[error("{0}")]
    Unusable(&'static str),
}
