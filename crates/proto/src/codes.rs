//! The one table of codes that clients see: errors in replies, reasons to close, reasons to unsubscribe.
//!
//! Numbers below 400 and from 2000 up to 3999 are the Centrifuge client protocol's (its documents on error and disconnect
//! codes); 400 to 1999 are left to applications by that protocol, and Talewire's own stand there.

use std::fmt;

macro_rules! codes {
    ($(#[$doc:meta])* $kind:ident { $($(#[$vdoc:meta])* $name:ident = $code:literal, $text:literal, $flag:literal;)+ } flag $flag_name:ident: $flag_doc:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $kind {$(
            $(#[$vdoc])*
            $name,
        )+}

        impl $kind {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> u32 {
                match self { $(Self::$name => $code),+ }
            }

            /// The sentence on the wire: short, ASCII, and never JSON.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            #[doc = $flag_doc]
            #[must_use]
            pub const fn $flag_name(self) -> bool {
                match self { $(Self::$name => $flag),+ }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} ({})", self.text(), self.code())
            }
        }
    };
}

codes! {
    /// Why a command was refused. The last column says whether it is worth trying again unchanged.
    ErrorCode {
        /// A fault on our side.
        Internal = 100, "internal server error", true;
        /// Who you are was not shown.
        Unauthorized = 101, "unauthorized", false;
        /// The channel's namespace does not exist.
        UnknownChannel = 102, "unknown channel", false;
        /// You may not do this.
        PermissionDenied = 103, "permission denied", false;
        /// No such rpc method.
        MethodNotFound = 104, "method not found", false;
        /// One subscription per channel and connection.
        AlreadySubscribed = 105, "already subscribed", false;
        /// A named limit was passed.
        LimitExceeded = 106, "limit exceeded", false;
        /// The command is malformed.
        BadRequest = 107, "bad request", false;
        /// The server does not offer this here.
        NotAvailable = 108, "not available", false;
        /// The token has expired: fetch a new one.
        TokenExpired = 109, "token expired", false;
        /// What the token allowed has run out for good.
        Expired = 110, "expired", false;
        /// Too many commands in too little time.
        TooManyRequests = 111, "too many requests", true;
        /// The position asked for cannot be recovered.
        UnrecoverablePosition = 112, "unrecoverable position", false;
        /// The thing named does not exist, or not for you.
        NotFound = 404, "not found", false;
        /// The branch already has an open generation.
        GenerationOpen = 409, "the narrator is already writing here", false;
        /// The text is empty, too long, or holds what it must not.
        BadText = 422, "the text cannot be taken", false;
        /// The invite was revoked, has expired, or never was.
        BadInvite = 410, "this invite is no longer good", false;
        /// A dependency (store, broker) does not answer: try again later.
        Unavailable = 503, "temporarily unavailable", true;
    }
    flag temporary: "Whether the same command may succeed if it is sent again later."
}

codes! {
    /// Why a connection is closed. The last column says whether a client is to connect again.
    CloseCode {
        /// The client left.
        Normal = 3000, "connection closed", true;
        /// The server goes down or restarts.
        Shutdown = 3001, "shutdown", true;
        /// A fault on our side.
        Internal = 3004, "internal server error", true;
        /// The connection's token ran out and was not refreshed.
        Expired = 3005, "connection expired", true;
        /// A server-side subscription ran out.
        SubscriptionExpired = 3006, "subscription expired", true;
        /// The client reads too slowly for its queue.
        Slow = 3008, "slow", true;
        /// Writing to the socket failed.
        WriteError = 3009, "write error", true;
        /// The position of a server-side subscription was lost.
        InsufficientState = 3010, "insufficient state", true;
        /// Asked to come again, by an operator.
        ForceReconnect = 3011, "force reconnect", true;
        /// No answer to a ping.
        NoPong = 3012, "no pong", true;
        /// Too many commands in too little time, repeatedly.
        TooManyRequests = 3013, "too many requests", true;
        /// The token is not good.
        InvalidToken = 3500, "invalid token", false;
        /// What the client sent makes no sense.
        BadRequest = 3501, "bad request", false;
        /// Never said who it is.
        Stale = 3502, "stale", false;
        /// Closed by an operator.
        ForceDisconnect = 3503, "force disconnect", false;
        /// Too many connections.
        ConnectionLimit = 3504, "connection limit", false;
        /// Too many subscriptions at connect.
        ChannelLimit = 3505, "channel limit", false;
        /// The payload does not fit the client's encoding.
        InappropriateProtocol = 3506, "inappropriate protocol", false;
        /// You may not be here.
        PermissionDenied = 3507, "permission denied", false;
        /// The server does not offer this.
        NotAvailable = 3508, "not available", false;
        /// Too many errors in one connection.
        TooManyErrors = 3509, "too many errors", false;
        /// A dependency (store, broker) does not answer: come again later.
        Unavailable = 4000, "temporarily unavailable", true;
    }
    flag reconnect: "Whether a client is to connect again (the rule of every client: 3500 to 3999 and 4500 to 4999 are final)."
}

codes! {
    /// Why the server ended a subscription. The last column says whether a client is to subscribe again.
    UnsubscribeCode {
        /// By an operator or because a right was taken away.
        Server = 2000, "server unsubscribe", false;
        /// The subscription fell too far behind, or history has a gap.
        InsufficientState = 2500, "insufficient state", true;
        /// The subscription's token ran out.
        Expired = 2501, "expired", true;
    }
    flag resubscribe: "Whether a client is to subscribe again (the rule of every client: 2500 and above)."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_mean_what_clients_take_them_for() {
        let mut seen = std::collections::HashSet::new();
        for code in ErrorCode::ALL {
            assert!(seen.insert(code.code()), "{code}");
            assert!((100..=112).contains(&code.code()) || (400..2000).contains(&code.code()), "{code}");
        }
        for code in CloseCode::ALL {
            assert!(seen.insert(code.code()), "{code}");
            assert_eq!(code.reconnect(), !matches!(code.code(), 3500..=3999 | 4500..=4999), "{code}");
            assert!(code.text().is_ascii() && code.text().len() <= 32, "{code}");
        }
        for code in UnsubscribeCode::ALL {
            assert!(seen.insert(code.code()), "{code}");
            assert_eq!(code.resubscribe(), code.code() >= 2500, "{code}");
        }
    }

    #[test]
    fn the_protocol_document_lists_every_code() {
        let document = include_str!("../../../PROTOCOL.md");
        let again = |yes: bool| if yes { "yes" } else { "no" };
        let errors = ErrorCode::ALL.iter().map(|c| (c.code(), c.text(), again(c.temporary())));
        let closes = CloseCode::ALL.iter().map(|c| (c.code(), c.text(), again(c.reconnect())));
        let unsubscribes = UnsubscribeCode::ALL.iter().map(|c| (c.code(), c.text(), again(c.resubscribe())));
        let mut rows = 0;
        for (code, text, again) in errors.chain(closes).chain(unsubscribes) {
            assert!(
                document.contains(&format!("| {code} | {text} | {again} |")),
                "{code} {text} is not in PROTOCOL.md"
            );
            rows += 1;
        }
        let is_row = |line: &&str| line.starts_with("| ") && line[2..].starts_with(|c: char| c.is_ascii_digit());
        assert_eq!(document.lines().filter(is_row).count(), rows, "PROTOCOL.md lists a code that is not there");
    }
}
