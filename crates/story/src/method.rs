//! The methods of stories: a closed list, so that an unknown name is refused in one place.

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)+) => {
        /// A method of PROTOCOL.md, section 3.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Method {$(
            $(#[$doc])*
            $name,
        )+}

        impl Method {
            /// Every method, in the order of the protocol's table.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

methods! {
    /// Begins a story.
    StoryCreate = "story.create";
    /// The caller's stories.
    StoryList = "story.list";
    /// A story and the end of one of its branches.
    StoryOpen = "story.open";
    /// Older turns of a branch.
    StoryTurns = "story.turns";
    /// Changes the title.
    StoryRename = "story.rename";
    /// Makes an invite.
    InviteCreate = "invite.create";
    /// The invites that are still good.
    InviteList = "invite.list";
    /// Ends an invite.
    InviteRevoke = "invite.revoke";
    /// What an invite leads to.
    InviteShow = "invite.show";
    /// Joins by an invite.
    StoryJoin = "story.join";
    /// Adds a turn.
    TurnAdd = "turn.add";
    /// Asks the narrator to go on.
    GenerationRequest = "generation.request";
    /// Asks the narrator to stop.
    GenerationStop = "generation.stop";
    /// The text of a generation so far.
    GenerationSnapshot = "generation.snapshot";
    /// Picks a choice.
    ChoicePick = "choice.pick";
}

impl Method {
    /// The method with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|method| method.name() == name)
    }
}
