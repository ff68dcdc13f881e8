//! The demo storyteller's sentences, by mood. Slots: `{hero}`, `{friend}`, `{noun}`, `{noun2}`. A noun may be singular or
//! plural, so that no sentence lets it agree with a present tense, or refers to it as "it".

/// How a passage feels.
pub(crate) struct Mood {
    /// Words of a turn or a wish that call for it.
    pub(crate) called_by: &'static [&'static str],
    /// The air, the light, the sounds.
    pub(crate) scenes: &'static [&'static str],
    /// What somebody does.
    pub(crate) deeds: &'static [&'static str],
    /// What happens then, and the two ways on.
    pub(crate) events: &'static [Event],
    /// The last sentence before the choices.
    pub(crate) hooks: &'static [&'static str],
}

/// Something that happens, and what could be done about it.
pub(crate) struct Event {
    pub(crate) text: &'static str,
    pub(crate) choices: [&'static str; 2],
}

const fn event(text: &'static str, first: &'static str, second: &'static str) -> Event {
    Event { text, choices: [first, second] }
}

/// All moods.
pub(crate) const MOODS: &[Mood] = &[WONDER, HUSH, MISCHIEF, STORM, WARMTH];

const WONDER: Mood = Mood {
    called_by: &[
        "magic", "wonder", "star", "moon", "dragon", "glow", "spell", "dream", "sky", "fairy", "strange", "space",
    ],
    scenes: &[
        "Above them the sky had come loose at one corner, and a little of tomorrow's light was leaking in.",
        "The air smelled of rain and oranges, and every shadow leaned the same way, as if listening.",
        "Somewhere far off a bell rang thirteen times, and nobody in the whole valley thought it strange.",
        "Dust turned slowly in the light, like a snowfall that had changed its mind.",
        "It was the hour when colours go out walking without their things.",
        "Small blue sparks ran along the edges of the world and were gone as soon as anyone looked.",
        "The wind had learned a new word overnight and was trying it on everything it touched.",
        "Overhead the stars had begun to move about, shyly, like guests before the music starts.",
    ],
    deeds: &[
        "{hero} reached out with one careful hand, touched the {noun}, and felt a hum there, deep and friendly, like a cat asleep in a piano.",
        "{hero} knelt down beside the {noun} and found letters in the dust, no taller than ants, marching in a line.",
        "“Look,” said {hero}, pointing past the {noun}, and for a moment both of them could see straight through to the other side of the day.",
        "{hero} counted to seven, which is the number for such things, and walked once around the {noun}.",
        "{friend} laughed aloud, the way people do when a thing is too large to be afraid of.",
        "{hero} whispered a greeting to the {noun}, feeling foolish, and then, when an answer came, not foolish at all.",
        "With the tip of one finger {hero} drew a door on the air next to the {noun}, only to see what would happen.",
    ],
    events: &[
        event(
            "Behind the {noun} a stair unfolded, one pale step after another, going down to where music was.",
            "Go down the stair, toward the music",
            "Sit on the top step and wait for whoever is playing",
        ),
        event(
            "Then the {noun} began to glow, faintly at first, like a window with somebody home.",
            "Knock, as one does at a lit window",
            "Hide the glow before anyone else sees it",
        ),
        event(
            "And there, folded small and tucked beneath the {noun}, lay a map of this very place, with one street too many.",
            "Look for the extra street",
            "Show the map to {friend} and nobody else",
        ),
        event(
            "The ground gave a soft sigh, and a second moon came up behind the {noun2}, dripping, and took its place beside the first.",
            "Ask the second moon what it wants",
            "Row out to where it came from",
        ),
        event(
            "All the birds of the place came down at once and sat in a ring about the {noun}, as if waiting for a story.",
            "Tell the birds a true story",
            "Tell the birds a splendid lie",
        ),
        event(
            "Something very old looked out from the {noun}, smiled at {friend}, and went back to sleep.",
            "Wake it again, gently",
            "Let it sleep, and follow its dream instead",
        ),
        event(
            "From the {noun2} rose a thread of silver smoke, and it wrote, in a tidy hand: not yet.",
            "Wait, and see what it writes next",
            "Write an answer underneath",
        ),
    ],
    hooks: &[
        "Whatever came next would have to be chosen quickly, while the door still remembered how to be open.",
        "“It won't wait for us,” said {friend} softly, and it was plain that this was so.",
        "Two ways lay open now, and only one of them had been there a minute ago.",
        "{hero} looked back once, and then did not look back again.",
        "Already the light was going thin at the edges.",
    ],
};

const HUSH: Mood = Mood {
    called_by: &[
        "dark", "night", "fog", "ghost", "silent", "silence", "quiet", "shadow", "scary", "creepy", "horror",
        "mystery", "secret", "whisper", "afraid",
    ],
    scenes: &[
        "The dark had a grain to it, like wood, and sounds ran along it strangely.",
        "Not a leaf moved; even the clock had the manners to whisper.",
        "Fog came up to the windows and stood there with its hat in its hands.",
        "Every footstep arrived a moment late, as though somebody behind them were being careful.",
        "The cold had a smell tonight, of iron, candle-ends and old letters.",
        "Far below, water was talking to itself in a language of only one word.",
        "A single lamp burned, and it kept its light close, like a secret.",
        "The hour had come when houses listen.",
    ],
    deeds: &[
        "{hero} held up a hand for quiet and bent close to the {noun}.",
        "“Don't,” said {friend}, but {hero} had already laid a palm flat against the {noun}.",
        "{hero} went on tiptoe, past the {noun}, past the place where the floor complains.",
        "{hero} listened with both eyes shut, until the {noun} seemed to breathe in time with the room.",
        "One by one {friend} put out the lights, so that only the {noun} could be made out against the pale of the window.",
        "Someone, it now appeared, had moved the {noun}, by no more than a hand's width, since anyone last looked.",
        "Slowly, as one would approach a sleeping dog, {hero} drew nearer to the {noun}.",
    ],
    events: &[
        event(
            "From the other side came a knock, three times, polite as a visitor.",
            "Open the door",
            "Knock back, four times",
        ),
        event(
            "Then the {noun2} gave a small dry cough, and a voice that nobody knew said, “At last.”",
            "Ask the voice whom it has waited for",
            "Pretend to be somebody else",
        ),
        event(
            "Something had been written in the dust beside the {noun}, and the last letter was still being made.",
            "Read it aloud",
            "Wipe it out before it is finished",
        ),
        event(
            "The shadow of the {noun} stood up, shook itself, and left by the door.",
            "Follow the shadow out",
            "Bar the door, and see what comes to fetch it",
        ),
        event(
            "When the match flared, there was one more person in the company than there should have been.",
            "Count again, out loud",
            "Offer the newcomer a seat",
        ),
        event(
            "Under the {noun2} lay a key, warm, as if a hand had only just let go of it.",
            "Find what the key opens",
            "Put it back and watch who comes for it",
        ),
        event(
            "Without any sound at all, the {noun} had turned to face them.",
            "Take one step closer",
            "Walk away without turning around",
        ),
    ],
    hooks: &[
        "There would be time for one more breath before it had to be decided.",
        "“We could still go home,” said {friend}, in the voice of someone who knew that they would not.",
        "Behind them the way they had come was quietly being taken up, like a carpet.",
        "{hero} did not move, and neither did whatever was there.",
        "The lamp had oil for an hour, no more.",
    ],
};

const MISCHIEF: Mood = Mood {
    called_by: &[
        "funny", "laugh", "silly", "joke", "cake", "goose", "duck", "cheese", "party", "hat", "comedy", "absurd",
        "banana", "clown",
    ],
    scenes: &[
        "It was the kind of afternoon that borrows things and does not give them back.",
        "A goose went by with the air of someone late for a trial.",
        "The weather had tried everything else that week and was now trying applause.",
        "Somebody had hung up a sign that said NO SIGNS, and somebody else had crossed it out.",
        "The whole place smelled of burnt sugar and bad ideas.",
        "From an upper window came the sound of a trombone being blamed for something.",
        "Three snails were having a race nearby, and the crowd was beside itself.",
        "The town clock struck a quarter to Tuesday.",
    ],
    deeds: &[
        "{hero} bowed to the {noun}, which is always wise, and trod on a hat, which is not.",
        "“I have a plan,” said {hero}, and {friend} at once began to look for something to hide behind.",
        "{friend} offered the {noun} a biscuit, on the theory that it had worked before.",
        "{hero} consulted the rulebook, found the page about the {noun} torn out, and cheered up enormously.",
        "With great dignity {hero} climbed on top of the {noun}, and with rather less came down again.",
        "{hero} addressed the {noun} in French, then in whistling, then with a firm cough.",
        "“Nobody touch anything,” said {friend}, touching the {noun}.",
    ],
    events: &[
        event(
            "At that, the {noun2} sneezed, and all the hats in the street rose politely into the air.",
            "Catch the finest hat and put it on",
            "Say “bless you” and run",
        ),
        event(
            "The {noun}, once opened, turned out to be full of very small clerks, all of them on strike.",
            "Join the strike",
            "Ask to see the manager, who is smaller still",
        ),
        event(
            "A trapdoor opened, thought better of it, and closed again with somebody's shoe in its teeth.",
            "Bargain with the trapdoor for the shoe",
            "Find out who is hopping",
        ),
        event(
            "Out from behind the {noun2} came a parade, led by a bear who had clearly not been told.",
            "March along, as if invited",
            "Break it to the bear, kindly",
        ),
        event(
            "The mayor arrived on a bicycle made for someone else and declared the {noun} illegal, as of last Wednesday.",
            "Plead guilty, with flourishes",
            "Elect a new mayor on the spot",
        ),
        event(
            "It was then that the {noun} started to sing, badly, and with feeling.",
            "Sing along, worse",
            "Charge admission",
        ),
        event(
            "A letter fell out of the sky, addressed to the {noun}, postage due.",
            "Pay the postage and open it",
            "Deliver it to the wrong address on purpose",
        ),
    ],
    hooks: &[
        "“It can hardly get worse,” said {friend}, and everything nearby leaned in to listen.",
        "There was only one sensible thing to do, and so nobody suggested it.",
        "{hero} looked at {friend}, {friend} looked at the {noun}, and a passing goose looked at its watch.",
        "Somewhere a whistle blew, and it was definitely about them.",
        "“On three,” said {hero}, who had never once got as far as three.",
    ],
};

const STORM: Mood = Mood {
    called_by: &[
        "storm",
        "rain",
        "thunder",
        "sea",
        "ship",
        "battle",
        "fight",
        "sword",
        "run",
        "chase",
        "danger",
        "escape",
        "adventure",
        "fire",
        "war",
    ],
    scenes: &[
        "The storm came over the hill with all its drums.",
        "Thunder walked about upstairs, moving the furniture.",
        "Rain came sideways, in handfuls, as though thrown by someone with a grudge.",
        "The sky went the colour of slate, and then of the thing behind slate.",
        "Wind took hold of every loose thing and asked it where it had been.",
        "Lightning showed them the whole country at once, and then took it away again.",
        "The ground shook, briefly, like a horse getting rid of a fly.",
        "Down in the valley the lights went out, street by street, as if someone were counting.",
    ],
    deeds: &[
        "“Hold on to the {noun}!” cried {hero}, and for once {friend} did as told.",
        "{hero} ran, and the {noun} flashed by, and the night ran alongside like a wolf that had not made up its mind.",
        "{friend} threw down the pack, took two steps back, and jumped.",
        "{hero} set one shoulder against the {noun} and pushed until stars came out behind both eyes.",
        "There was no rope, so {hero} made do with a scarf, a prayer and the {noun}.",
        "{hero} shouted a warning, but the wind ate it, and looked about for more.",
        "Hand over hand, {hero} made it as far as the {noun} and hung on.",
    ],
    events: &[
        event(
            "With a crack like a slammed book, the {noun2} gave way.",
            "Leap across before the rest goes",
            "Climb down into what has opened",
        ),
        event(
            "Out of the dark came riders, five of them, and the foremost wore a crown of wet leaves.",
            "Stand in the road and hail them",
            "Take the sixth horse, the one without a rider",
        ),
        event(
            "Then, as suddenly as a held breath, everything stopped, and in the stillness the {noun} stood shining.",
            "Walk out into the stillness",
            "Use the calm to get {friend} to safety",
        ),
        event(
            "A great shape moved beneath the {noun2}, slow as a tide, and woke.",
            "Speak to it before it speaks",
            "Run for the high ground",
        ),
        event(
            "The bridge was gone; where it had been, there hung only the {noun}, swaying a little.",
            "Swing across",
            "Call for the ferry, though nobody ever comes",
        ),
        event(
            "A horn answered from the far side, where no one had lived for a hundred years.",
            "Answer the horn",
            "Put out the lantern and lie low",
        ),
        event(
            "The river rose up on its hind legs and took the {noun2} with it.",
            "Dive in after",
            "Follow along the bank, and wait for the river to tire",
        ),
    ],
    hooks: &[
        "They had, at a guess, as long as it takes to say so.",
        "“Now or never,” said {friend}, and it did not sound like a figure of speech.",
        "{hero} wiped the rain away and saw that there were two paths, both bad.",
        "The next flash would settle it.",
        "Whatever they did, they would have to do it together.",
    ],
};

const WARMTH: Mood = Mood {
    called_by: &[
        "love", "home", "friend", "mother", "father", "child", "tea", "bread", "kiss", "gentle", "kind", "sad",
        "remember", "letter", "cozy", "romance",
    ],
    scenes: &[
        "Evening came in without knocking and sat down by the stove.",
        "Somewhere near, bread was being baked by a person with no secrets.",
        "The light lay down along the floor like an old dog.",
        "Swallows wrote long letters over the roofs and signed none of them.",
        "There was a kindness in the air that made even the stones look rested.",
        "A kettle began to sing, a little flat, about the sea.",
        "The last of the sun went round and said good night to each thing separately.",
        "It was quiet in the way of a house where everyone is reading.",
    ],
    deeds: &[
        "{hero} sat down beside the {noun} and, for the first time that day, was in no hurry.",
        "“I never told you,” said {friend}, and {hero} had to look away at the {noun} for a while.",
        "{hero} mended what could be mended, and gave the {noun} a pat, as one does with old friends.",
        "{friend} told the story of the {noun} again, the long way, with all the voices.",
        "{hero} poured two cups and set one down by the {noun}, in case.",
        "They shared an apple, {hero} and {friend}, passing it back and forth until there was only the star of it left.",
        "{hero} hummed half of a tune, and {friend}, without looking up, hummed the other half.",
    ],
    events: &[
        event(
            "It was then that the {noun} gave back what had been lost there, years ago: a name, a button, a laugh.",
            "Say the name out loud",
            "Keep the button, and ask whose it was",
        ),
        event(
            "Between two pages of an old book, beside the {noun}, lay a letter in {hero}'s own handwriting.",
            "Read the letter",
            "Burn it unread, and write a better one",
        ),
        event(
            "A child whom neither of them knew came in, took {friend} by the sleeve and said, “They're waiting.”",
            "Go with the child",
            "Ask the child to sit down and eat first",
        ),
        event(
            "And the {noun2}, silent for so many years, made a small sound like a yes.",
            "Ask the question again, properly",
            "Leave it at that, and dance",
        ),
        event(
            "Through the window they saw lights coming up the road, a great many, carried low.",
            "Set out more chairs",
            "Go out to meet the lights",
        ),
        event(
            "Under the paint of the {noun} an older paint was showing, and in it a face that {hero} had dreamed of.",
            "Scrape away the rest of the paint",
            "Go looking for the face",
        ),
        event(
            "The snow began, and every flake of it seemed to be looking for somebody.",
            "Stand still and be found",
            "Follow the snow to where it is falling hardest",
        ),
    ],
    hooks: &[
        "It would have been easy to stay, and that was the trouble with it.",
        "“There is still time,” said {friend}, and put on both gloves.",
        "Outside, someone was calling a name, and it was nearly {hero}'s.",
        "{hero} folded the moment up small, to keep, and stood.",
        "One of them would have to speak first.",
    ],
};

/// First sentences of a story that has no turn yet. Slot: `{title}`.
pub(crate) const OPENINGS: &[&str] = &[
    "“{title}” begins, as such stories do, on a morning when something small was missing.",
    "Nobody remembers who first told “{title}”, only that it opens at a door.",
    "Once, and not so long ago that it has been forgotten, there was a beginning, and this is it.",
    "If “{title}” had a map, it would start here, where the ink was still wet.",
    "There are nine ways to begin “{title}”, and this is the shortest.",
];

/// First sentences that take up a plain turn. Slot besides the usual: `{echo}`.
pub(crate) const PICKUPS: &[&str] = &[
    "It was the {noun} that changed first.",
    "For a while nobody said anything about the {noun}, which is how you could tell that everyone was thinking of nothing else.",
    "“{echo}”: the words stayed where they had been left, a little above the ground.",
    "After that, nobody could look at the {noun} in quite the old way.",
    "Later, {hero} would always tell it like this, “{echo}”, and leave out what came next.",
    "No sooner had this happened than the {noun} seemed to lean a little closer.",
    "So that was how things stood: “{echo}”, and the {noun} not saying a word.",
    "{hero} turned it over twice, the way one turns a coin from a country that no longer exists: “{echo}”.",
    "What {hero} had begun could not be put back now, and the {noun} seemed to know.",
    "The news of it got as far as the {noun} and stopped there, out of breath.",
];

/// First sentences after a question.
pub(crate) const AFTER_QUESTION: &[&str] = &[
    "That was the question, and it hung between them like washing.",
    "Nobody answered at once; some questions want to be walked around first.",
    "“A good question,” said the silence, in its way, and then the {noun} answered instead.",
    "The answer, when it came, did not come from {friend} at all, but from the direction of the {noun}.",
];

/// First sentences after speech.
pub(crate) const AFTER_SPEECH: &[&str] = &[
    "The words hung there a moment longer than words usually do.",
    "It had been said lightly, but the {noun} had been listening all along.",
    "There are things that cannot be unsaid, and this, it turned out, was one of the better ones.",
    "{friend} opened a mouth to reply, looked at the {noun}, and closed it again.",
];

/// First sentences after a choice. Slot: `{choice}`.
pub(crate) const AFTER_CHOICE: &[&str] = &[
    "“{choice}”, then: once said aloud, it was already half done.",
    "So it was settled, and nobody voted against it: “{choice}”.",
    "“{choice}.” There are worse plans, though {friend} could not just then think of one.",
    "“{choice}”, they had agreed, and three heartbeats later there was no other plan in the world.",
];

/// How a wish is taken up. Slot: `{wish}`.
pub(crate) const WISHES: &[&str] = &[
    "“{wish}”, somebody had murmured, and the tale, which likes to be asked, leaned that way.",
    "And because a wish had been made, “{wish}”, the {noun} set about granting it, in the roundabout way of such things.",
    "A wish had gone round the company, “{wish}”, and the evening had taken note of it.",
];

/// How the half-asleep voice is heard. Slot: `{voice}`.
pub(crate) const VOICES: &[&str] = &[
    "With an ear close to the {noun}, one could make out a small voice telling it all over again, the wrong way round: “{voice}.”",
    "“{voice},” mumbled someone asleep nearby, and turned over.",
    "A scrap of paper blew past with half a sentence on it: “{voice}…”",
    "An echo came back, from farther off than it should have, and not quite right: “{voice}.”",
    "A parrot whom nobody had noticed remarked, “{voice},” and would not be drawn further.",
    "On the wall someone had chalked, in a child's round hand: “{voice}.”",
];

/// What `@emoji` asks for: surrogate pairs, joined families, flags, keycaps and skin tones.
pub(crate) const EMOJI: &str =
    "Overhead the stars spelled out 🦊🌙 👩‍🚀 👨‍👩‍👧‍👦 🏴‍☠️ 🇫🇷 7️⃣ 👋🏽, and nobody could read a word of it.";
