//! `ErrorCode`: the error codes of the protocol and whether trying again can help.

use std::fmt;

macro_rules! error_codes {
    ($($(#[$doc:meta])+ $variant:ident = $code:literal $name:literal $retriable:literal;)*) => {
        /// An error code of Kafka, [`ErrorCode::None`] included.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $(
                $(#[$doc])+
                $variant,
            )*
            /// A code that this crate does not know. Not retriable.
            Unknown(i16),
        }

        impl ErrorCode {
            /// Every known code, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The meaning of a number on the wire.
            pub const fn from_code(code: i16) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    other => Self::Unknown(other),
                }
            }

            /// The number on the wire.
            pub const fn code(self) -> i16 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Unknown(code) => code,
                }
            }

            /// Name as in Kafka's documentation, such as `NOT_COORDINATOR`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Unknown(_) => "UNKNOWN",
                }
            }

            /// Whether the same request can succeed later, perhaps at another broker. As Kafka's clients class it.
            pub const fn is_retriable(self) -> bool {
                match self {
                    $(Self::$variant => $retriable,)*
                    Self::Unknown(_) => false,
                }
            }
        }
    };
}

error_codes! {
    /// The server failed in a way it has no code for.
    UnknownServerError = -1 "UNKNOWN_SERVER_ERROR" false;
    /// Success.
    None = 0 "NONE" false;
    /// The log does not hold that offset.
    OffsetOutOfRange = 1 "OFFSET_OUT_OF_RANGE" false;
    /// Checksum, size or content of a record batch is wrong, or a compacted topic got a record without a key.
    CorruptMessage = 2 "CORRUPT_MESSAGE" true;
    /// This broker does not host the partition, or the topic does not exist yet.
    UnknownTopicOrPartition = 3 "UNKNOWN_TOPIC_OR_PARTITION" true;
    /// The fetch size is not usable.
    InvalidFetchSize = 4 "INVALID_FETCH_SIZE" false;
    /// The partition has no leader at the moment.
    LeaderNotAvailable = 5 "LEADER_NOT_AVAILABLE" true;
    /// The asked broker does not lead (or follow) the partition; metadata is stale.
    NotLeaderOrFollower = 6 "NOT_LEADER_OR_FOLLOWER" true;
    /// The broker gave up after the timeout of the request.
    RequestTimedOut = 7 "REQUEST_TIMED_OUT" true;
    /// The broker is not there.
    BrokerNotAvailable = 8 "BROKER_NOT_AVAILABLE" false;
    /// The replica is not there for this partition.
    ReplicaNotAvailable = 9 "REPLICA_NOT_AVAILABLE" true;
    /// A record batch exceeds what the topic accepts (`max.message.bytes`).
    MessageTooLarge = 10 "MESSAGE_TOO_LARGE" false;
    /// The controller has moved.
    StaleControllerEpoch = 11 "STALE_CONTROLLER_EPOCH" false;
    /// The metadata string of a committed offset is too long (`offset.metadata.max.bytes`).
    OffsetMetadataTooLarge = 12 "OFFSET_METADATA_TOO_LARGE" false;
    /// The connection broke before the answer came.
    NetworkException = 13 "NETWORK_EXCEPTION" true;
    /// The coordinator is still reading its state.
    CoordinatorLoadInProgress = 14 "COORDINATOR_LOAD_IN_PROGRESS" true;
    /// There is no coordinator at the moment.
    CoordinatorNotAvailable = 15 "COORDINATOR_NOT_AVAILABLE" true;
    /// Another broker coordinates this group or transaction.
    NotCoordinator = 16 "NOT_COORDINATOR" true;
    /// The topic name is illegal, or the topic may not be used this way.
    InvalidTopicException = 17 "INVALID_TOPIC_EXCEPTION" false;
    /// The batch is larger than a log segment.
    RecordListTooLarge = 18 "RECORD_LIST_TOO_LARGE" false;
    /// Fewer replicas are in sync than `min.insync.replicas`; nothing was written.
    NotEnoughReplicas = 19 "NOT_ENOUGH_REPLICAS" true;
    /// Written, but to fewer in-sync replicas than required.
    NotEnoughReplicasAfterAppend = 20 "NOT_ENOUGH_REPLICAS_AFTER_APPEND" true;
    /// `acks` is none of -1, 0 and 1.
    InvalidRequiredAcks = 21 "INVALID_REQUIRED_ACKS" false;
    /// The group has a newer generation.
    IllegalGeneration = 22 "ILLEGAL_GENERATION" false;
    /// The member shares no protocol with the group, or offered none.
    InconsistentGroupProtocol = 23 "INCONSISTENT_GROUP_PROTOCOL" false;
    /// The group id is not usable.
    InvalidGroupId = 24 "INVALID_GROUP_ID" false;
    /// The group has no such member.
    UnknownMemberId = 25 "UNKNOWN_MEMBER_ID" false;
    /// The session timeout is outside the broker's bounds.
    InvalidSessionTimeout = 26 "INVALID_SESSION_TIMEOUT" false;
    /// The group is rebalancing; the member must join again.
    RebalanceInProgress = 27 "REBALANCE_IN_PROGRESS" false;
    /// The committed data is too large.
    InvalidCommitOffsetSize = 28 "INVALID_COMMIT_OFFSET_SIZE" false;
    /// Not allowed on this topic.
    TopicAuthorizationFailed = 29 "TOPIC_AUTHORIZATION_FAILED" false;
    /// Not allowed on this group.
    GroupAuthorizationFailed = 30 "GROUP_AUTHORIZATION_FAILED" false;
    /// Not allowed on this cluster.
    ClusterAuthorizationFailed = 31 "CLUSTER_AUTHORIZATION_FAILED" false;
    /// A timestamp is too far from the broker's clock.
    InvalidTimestamp = 32 "INVALID_TIMESTAMP" false;
    /// The broker lacks the SASL mechanism.
    UnsupportedSaslMechanism = 33 "UNSUPPORTED_SASL_MECHANISM" false;
    /// The request does not fit the state of the authentication.
    IllegalSaslState = 34 "ILLEGAL_SASL_STATE" false;
    /// The broker lacks this version of the API.
    UnsupportedVersion = 35 "UNSUPPORTED_VERSION" false;
    /// There is a topic with this name.
    TopicAlreadyExists = 36 "TOPIC_ALREADY_EXISTS" false;
    /// The number of partitions is not usable.
    InvalidPartitions = 37 "INVALID_PARTITIONS" false;
    /// The replication factor is below 1 or above the number of brokers.
    InvalidReplicationFactor = 38 "INVALID_REPLICATION_FACTOR" false;
    /// The given assignment of replicas is not usable.
    InvalidReplicaAssignment = 39 "INVALID_REPLICA_ASSIGNMENT" false;
    /// A configuration value is not usable.
    InvalidConfig = 40 "INVALID_CONFIG" false;
    /// Another node is the controller.
    NotController = 41 "NOT_CONTROLLER" true;
    /// The request contradicts itself or the protocol.
    InvalidRequest = 42 "INVALID_REQUEST" false;
    /// The stored record format cannot do this.
    UnsupportedForMessageFormat = 43 "UNSUPPORTED_FOR_MESSAGE_FORMAT" false;
    /// A policy of the broker forbids it.
    PolicyViolation = 44 "POLICY_VIOLATION" false;
    /// A sequence number of an idempotent producer is missing before this one.
    OutOfOrderSequenceNumber = 45 "OUT_OF_ORDER_SEQUENCE_NUMBER" false;
    /// The batch was written before.
    DuplicateSequenceNumber = 46 "DUPLICATE_SEQUENCE_NUMBER" false;
    /// A newer instance of the producer exists.
    InvalidProducerEpoch = 47 "INVALID_PRODUCER_EPOCH" false;
    /// The transaction is not in a state that allows this.
    InvalidTxnState = 48 "INVALID_TXN_STATE" false;
    /// The producer id does not belong to this transactional id.
    InvalidProducerIdMapping = 49 "INVALID_PRODUCER_ID_MAPPING" false;
    /// The transaction timeout exceeds the broker's maximum.
    InvalidTransactionTimeout = 50 "INVALID_TRANSACTION_TIMEOUT" false;
    /// The previous step of the same transaction is still in progress.
    ConcurrentTransactions = 51 "CONCURRENT_TRANSACTIONS" true;
    /// The coordinator that sent the markers is not the current one.
    TransactionCoordinatorFenced = 52 "TRANSACTION_COORDINATOR_FENCED" false;
    /// Not allowed with this transactional id.
    TransactionalIdAuthorizationFailed = 53 "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" false;
    /// The broker runs without the security feature asked for.
    SecurityDisabled = 54 "SECURITY_DISABLED" false;
    /// Another part of the same request failed first.
    OperationNotAttempted = 55 "OPERATION_NOT_ATTEMPTED" false;
    /// A disk of the broker failed.
    KafkaStorageError = 56 "KAFKA_STORAGE_ERROR" true;
    /// The broker has no such log directory.
    LogDirNotFound = 57 "LOG_DIR_NOT_FOUND" false;
    /// The credentials are wrong.
    SaslAuthenticationFailed = 58 "SASL_AUTHENTICATION_FAILED" false;
    /// The broker no longer remembers this producer.
    UnknownProducerId = 59 "UNKNOWN_PRODUCER_ID" false;
    /// The partition is being moved.
    ReassignmentInProgress = 60 "REASSIGNMENT_IN_PROGRESS" false;
    /// Delegation tokens are switched off.
    DelegationTokenAuthDisabled = 61 "DELEGATION_TOKEN_AUTH_DISABLED" false;
    /// There is no such delegation token.
    DelegationTokenNotFound = 62 "DELEGATION_TOKEN_NOT_FOUND" false;
    /// The token belongs to somebody else.
    DelegationTokenOwnerMismatch = 63 "DELEGATION_TOKEN_OWNER_MISMATCH" false;
    /// Tokens cannot be asked for on this connection.
    DelegationTokenRequestNotAllowed = 64 "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED" false;
    /// Not allowed with this token.
    DelegationTokenAuthorizationFailed = 65 "DELEGATION_TOKEN_AUTHORIZATION_FAILED" false;
    /// The token has expired.
    DelegationTokenExpired = 66 "DELEGATION_TOKEN_EXPIRED" false;
    /// The broker does not know this type of principal.
    InvalidPrincipalType = 67 "INVALID_PRINCIPAL_TYPE" false;
    /// The group still has members.
    NonEmptyGroup = 68 "NON_EMPTY_GROUP" false;
    /// There is no such group.
    GroupIdNotFound = 69 "GROUP_ID_NOT_FOUND" false;
    /// The broker has dropped the fetch session.
    FetchSessionIdNotFound = 70 "FETCH_SESSION_ID_NOT_FOUND" true;
    /// The fetch session expects another epoch.
    InvalidFetchSessionEpoch = 71 "INVALID_FETCH_SESSION_EPOCH" true;
    /// The leader has no listener like the one that was asked.
    ListenerNotFound = 72 "LISTENER_NOT_FOUND" true;
    /// Topics cannot be deleted (`delete.topic.enable`).
    TopicDeletionDisabled = 73 "TOPIC_DELETION_DISABLED" false;
    /// The request knows an older leader epoch than the broker.
    FencedLeaderEpoch = 74 "FENCED_LEADER_EPOCH" true;
    /// The request knows a newer leader epoch than the broker.
    UnknownLeaderEpoch = 75 "UNKNOWN_LEADER_EPOCH" true;
    /// The version of the request cannot carry the compression of the data.
    UnsupportedCompressionType = 76 "UNSUPPORTED_COMPRESSION_TYPE" false;
    /// The broker has registered again since.
    StaleBrokerEpoch = 77 "STALE_BROKER_EPOCH" false;
    /// A new leader does not yet know how far its log is committed.
    OffsetNotAvailable = 78 "OFFSET_NOT_AVAILABLE" true;
    /// Join again with the member id that this answer gives (KIP-394).
    MemberIdRequired = 79 "MEMBER_ID_REQUIRED" false;
    /// The preferred leader is not there.
    PreferredLeaderNotAvailable = 80 "PREFERRED_LEADER_NOT_AVAILABLE" true;
    /// The group is full (`group.max.size`).
    GroupMaxSizeReached = 81 "GROUP_MAX_SIZE_REACHED" false;
    /// Another member has the same `group.instance.id`.
    FencedInstanceId = 82 "FENCED_INSTANCE_ID" false;
    /// No replica can become leader.
    EligibleLeadersNotAvailable = 83 "ELIGIBLE_LEADERS_NOT_AVAILABLE" true;
    /// The wanted leader leads already.
    ElectionNotNeeded = 84 "ELECTION_NOT_NEEDED" true;
    /// The partition is not being moved.
    NoReassignmentInProgress = 85 "NO_REASSIGNMENT_IN_PROGRESS" false;
    /// The group still reads the topic whose offsets are to be deleted.
    GroupSubscribedToTopic = 86 "GROUP_SUBSCRIBED_TO_TOPIC" false;
    /// The broker refuses a record of the batch.
    InvalidRecord = 87 "INVALID_RECORD" false;
    /// An open transaction holds offsets of this partition.
    UnstableOffsetCommit = 88 "UNSTABLE_OFFSET_COMMIT" true;
    /// A quota is used up.
    ThrottlingQuotaExceeded = 89 "THROTTLING_QUOTA_EXCEEDED" true;
    /// A newer producer has the same transactional id.
    ProducerFenced = 90 "PRODUCER_FENCED" false;
    /// The named resource does not exist.
    ResourceNotFound = 91 "RESOURCE_NOT_FOUND" false;
    /// The request names a resource twice.
    DuplicateResource = 92 "DUPLICATE_RESOURCE" false;
    /// The credential is too weak or otherwise refused.
    UnacceptableCredential = 93 "UNACCEPTABLE_CREDENTIAL" false;
    /// The sender or the receiver is not a voter of the quorum.
    InconsistentVoterSet = 94 "INCONSISTENT_VOTER_SET" false;
    /// The feature version is not usable.
    InvalidUpdateVersion = 95 "INVALID_UPDATE_VERSION" false;
    /// The feature could not be updated.
    FeatureUpdateFailed = 96 "FEATURE_UPDATE_FAILED" false;
    /// A forwarded principal cannot be read.
    PrincipalDeserializationFailure = 97 "PRINCIPAL_DESERIALIZATION_FAILURE" false;
    /// There is no such metadata snapshot.
    SnapshotNotFound = 98 "SNAPSHOT_NOT_FOUND" false;
    /// The position lies outside the metadata snapshot.
    PositionOutOfRange = 99 "POSITION_OUT_OF_RANGE" false;
    /// This broker hosts no topic with this id.
    UnknownTopicId = 100 "UNKNOWN_TOPIC_ID" true;
    /// Another live broker has this id.
    DuplicateBrokerRegistration = 101 "DUPLICATE_BROKER_REGISTRATION" false;
    /// No broker has registered with this id.
    BrokerIdNotRegistered = 102 "BROKER_ID_NOT_REGISTERED" false;
    /// The log on disk belongs to another topic id.
    InconsistentTopicId = 103 "INCONSISTENT_TOPIC_ID" true;
    /// The request is meant for another cluster.
    InconsistentClusterId = 104 "INCONSISTENT_CLUSTER_ID" false;
    /// There is no such transactional id.
    TransactionalIdNotFound = 105 "TRANSACTIONAL_ID_NOT_FOUND" false;
    /// The fetch session mixes topic names and ids.
    FetchSessionTopicIdError = 106 "FETCH_SESSION_TOPIC_ID_ERROR" true;
    /// A replica of the new in-sync set may not be in it.
    IneligibleReplica = 107 "INELIGIBLE_REPLICA" false;
    /// The partition changed, and its leader with it.
    NewLeaderElected = 108 "NEW_LEADER_ELECTED" false;
    /// The offset lies in remote storage.
    OffsetMovedToTieredStorage = 109 "OFFSET_MOVED_TO_TIERED_STORAGE" false;
    /// The member must give up its partitions and join again (KIP-848).
    FencedMemberEpoch = 110 "FENCED_MEMBER_EPOCH" false;
    /// The previous member with this instance id has not left.
    UnreleasedInstanceId = 111 "UNRELEASED_INSTANCE_ID" false;
    /// The group does not know the assignor.
    UnsupportedAssignor = 112 "UNSUPPORTED_ASSIGNOR" false;
    /// The member must learn its new epoch by a heartbeat first.
    StaleMemberEpoch = 113 "STALE_MEMBER_EPOCH" false;
    /// A controller was asked what a broker answers, or the other way round.
    MismatchedEndpointType = 114 "MISMATCHED_ENDPOINT_TYPE" false;
    /// This kind of endpoint is not supported.
    UnsupportedEndpointType = 115 "UNSUPPORTED_ENDPOINT_TYPE" false;
    /// There is no controller with this id.
    UnknownControllerId = 116 "UNKNOWN_CONTROLLER_ID" false;
    /// The telemetry subscription has changed (KIP-714).
    UnknownSubscriptionId = 117 "UNKNOWN_SUBSCRIPTION_ID" false;
    /// The pushed telemetry is too large.
    TelemetryTooLarge = 118 "TELEMETRY_TOO_LARGE" false;
    /// The controller refuses the registration.
    InvalidRegistration = 119 "INVALID_REGISTRATION" false;
    /// The transaction must be aborted; the producer may go on after that.
    TransactionAbortable = 120 "TRANSACTION_ABORTABLE" false;
    /// The record cannot be acknowledged in its state (KIP-932).
    InvalidRecordState = 121 "INVALID_RECORD_STATE" false;
    /// The broker has dropped the share session.
    ShareSessionNotFound = 122 "SHARE_SESSION_NOT_FOUND" true;
    /// The share session expects another epoch.
    InvalidShareSessionEpoch = 123 "INVALID_SHARE_SESSION_EPOCH" true;
    /// The share-group state has a newer epoch.
    FencedStateEpoch = 124 "FENCED_STATE_EPOCH" false;
    /// The voter has another key.
    InvalidVoterKey = 125 "INVALID_VOTER_KEY" false;
    /// The voter is in the set already.
    DuplicateVoter = 126 "DUPLICATE_VOTER" false;
    /// The voter is not in the set.
    VoterNotFound = 127 "VOTER_NOT_FOUND" false;
    /// The topic pattern cannot be read.
    InvalidRegularExpression = 128 "INVALID_REGULAR_EXPRESSION" false;
    /// The client must start again from its bootstrap servers.
    RebootstrapRequired = 129 "REBOOTSTRAP_REQUIRED" false;
    /// The topology is not usable (KIP-1071).
    StreamsInvalidTopology = 130 "STREAMS_INVALID_TOPOLOGY" false;
    /// The topology epoch is not usable.
    StreamsInvalidTopologyEpoch = 131 "STREAMS_INVALID_TOPOLOGY_EPOCH" false;
    /// The group has a newer topology.
    StreamsTopologyFenced = 132 "STREAMS_TOPOLOGY_FENCED" false;
    /// The broker has no room for another share session.
    ShareSessionLimitReached = 133 "SHARE_SESSION_LIMIT_REACHED" true;
}

impl ErrorCode {
    /// Whether this is success.
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }

    /// `Ok` for success, the error otherwise.
    pub const fn ok(self) -> Result<(), Self> {
        if self.is_none() { Ok(()) } else { Err(self) }
    }
}

impl From<i16> for ErrorCode {
    fn from(code: i16) -> Self {
        Self::from_code(code)
    }
}

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> Self {
        error.code()
    }
}

impl std::error::Error for ErrorCode {}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(code) => write!(f, "unknown error code {code}"),
            known => f.write_str(known.name()),
        }
    }
}
