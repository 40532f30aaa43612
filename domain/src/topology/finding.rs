//! Findings: what is wrong with a topology, each with its place.

use std::fmt;

/// Whether a finding stops a deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingSeverity {
    /// It stops a deploy.
    Error,
    /// It does not.
    Warning,
}

impl FindingSeverity {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// Which rule a finding is of.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FindingCode { $($(#[$doc])* $variant,)* }

        impl FindingCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

codes! {
    /// No LAN is the DMZ.
    DmzMissing = "DMZ_MISSING",
    /// More than one LAN is the DMZ.
    DmzMultiple = "DMZ_MULTIPLE",
    /// A LAN that no chain of deckies joins to the DMZ.
    DmzOrphan = "DMZ_ORPHAN",
    /// A decky on no LAN.
    DeckyOrphan = "DECKY_ORPHAN",
    /// Two LANs of one name.
    LanNameDup = "LAN_NAME_DUP",
    /// Two deckies of one name.
    DeckyNameDup = "DECKY_NAME_DUP",
    /// A name that breaks the rule for names.
    NameInvalid = "NAME_INVALID",
    /// A word that is not of the set where it stands.
    ValueInvalid = "VALUE_INVALID",
    /// A text that is no address.
    IpMalformed = "IP_MALFORMED",
    /// An address in a LAN that does not exist.
    IpUnknownLan = "IP_UNKNOWN_LAN",
    /// An address outside its LAN.
    IpOutOfSubnet = "IP_OUT_OF_SUBNET",
    /// An address given twice in one LAN.
    IpCollision = "IP_COLLISION",
    /// The network's, the broadcast's or the engine's own address.
    IpReserved = "IP_RESERVED",
    /// No address left in a LAN.
    IpExhausted = "IP_EXHAUSTED",
    /// A text that is no subnet.
    SubnetMalformed = "SUBNET_MALFORMED",
    /// Two LANs whose ranges overlap.
    SubnetOverlap = "SUBNET_OVERLAP",
    /// A range that is not for this: loopback, multicast, link-local.
    SubnetReserved = "SUBNET_RESERVED",
    /// No subnet left in a range.
    SubnetExhausted = "SUBNET_EXHAUSTED",
    /// A service that does not exist.
    UnknownService = "UNKNOWN_SERVICE",
    /// Options of a service that the decky does not have.
    ServiceCfgUndeclared = "SERVICE_CFG_UNDECLARED",
    /// An option that the service does not take.
    ServiceCfgInvalid = "SERVICE_CFG_INVALID",
    /// A service that no decky can carry out yet.
    ServiceUnimplemented = "SERVICE_UNIMPLEMENTED",
    /// A service that an attacker would not expect on the operating system that is shown.
    PersonaMismatch = "PERSONA_MISMATCH",
    /// Two services of one decky on one port.
    PortCollision = "PORT_COLLISION",
    /// A published port of a decky that is not in the DMZ.
    GatewayNotInDmz = "GATEWAY_NOT_IN_DMZ",
    /// Two deckies behind one port of the host.
    PublishCollision = "PUBLISH_COLLISION",
    /// A published port on which the decky serves nothing.
    PublishUnserved = "PUBLISH_UNSERVED",
    /// A published port of a decky that no bridge joins to the host.
    PublishUnbridged = "PUBLISH_UNBRIDGED",
    /// A decky twice on one LAN.
    EdgeDup = "EDGE_DUP",
    /// An edge to a LAN that does not exist.
    EdgeUnknown = "EDGE_UNKNOWN",
    /// More of something than the limits allow.
    TooLarge = "TOO_LARGE",
    /// A reference to a LAN or a decky that the topology does not have.
    ReferenceUnknown = "REFERENCE_UNKNOWN",
    /// A decky's home, which it cannot lose while it exists.
    HomeLan = "HOME_LAN",
    /// A change that a live topology cannot take.
    ChangeRefused = "CHANGE_REFUSED",
    /// Something of a foreign document that its import left out, changed or assumed.
    ImportChanged = "IMPORT_CHANGED",
}

/// One thing that is wrong. Findings are ordered by severity, code and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it stops a deploy.
    pub severity: FindingSeverity,
    /// Which rule.
    pub code: FindingCode,
    /// For a person: cause and way out.
    pub message: String,
    /// What it is about, by name: `lan web`, `decky db-1`.
    pub target: String,
    /// Where it stands in the document, such as `deckies[3].edges[0].address`.
    pub path: String,
}

impl Finding {
    /// A finding that stops a deploy.
    pub fn error(
        code: FindingCode,
        target: impl Into<String>,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: FindingSeverity::Error,
            code,
            message: message.into(),
            target: target.into(),
            path: path.into(),
        }
    }

    /// A finding that does not.
    pub fn warning(
        code: FindingCode,
        target: impl Into<String>,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: FindingSeverity::Warning,
            ..Self::error(code, target, path, message)
        }
    }

    /// Whether it stops a deploy.
    pub fn is_error(&self) -> bool {
        self.severity == FindingSeverity::Error
    }

    /// Whether it is about the shape of the whole, which may be incomplete between two edits of a
    /// live topology: a LAN is there before its gateway.
    pub fn is_of_shape(&self) -> bool {
        [
            FindingCode::DmzMissing,
            FindingCode::DmzMultiple,
            FindingCode::DmzOrphan,
            FindingCode::DeckyOrphan,
        ]
        .contains(&self.code)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "[{}] {}: {}",
            self.code.as_str(),
            self.path,
            self.message
        )
    }
}

/// Puts findings into their one order.
pub fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        (a.severity, a.code, &a.path, &a.message).cmp(&(b.severity, b.code, &b.path, &b.message))
    });
}
