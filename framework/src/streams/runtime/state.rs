//! `AppState`: what an application is doing.

use std::fmt;

/// What an application is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppState {
    /// Partitions come or go, or stores are restored.
    Rebalancing,
    /// All tasks of this instance process.
    Running,
    /// It commits and leaves the group.
    Closing,
    /// It ended as asked.
    Closed,
    /// It ended with an error: see [`StreamsApp::failure`](super::StreamsApp::failure).
    Failed,
}

impl AppState {
    pub(super) const ALL: [Self; 5] =
        [Self::Rebalancing, Self::Running, Self::Closing, Self::Closed, Self::Failed];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rebalancing => "rebalancing",
            Self::Running => "running",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for AppState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
