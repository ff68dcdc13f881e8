//! What sources and webhooks have done since the start, counted where it happens, and written out for `/metrics`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What one source has done.
#[derive(Debug, Default)]
pub struct SourceCounts {
    /// Messages taken from the source.
    pub consumed: AtomicU64,
    /// Messages that became publications.
    pub published: AtomicU64,
    /// Messages that had been published before: nothing was added.
    pub repeated: AtomicU64,
    /// Messages that can never be published.
    pub put_aside: AtomicU64,
    /// Publications that were tried again.
    pub retries: AtomicU64,
    /// Times that the source failed, or could not be reached.
    pub failures: AtomicU64,
    /// Whether it is connected now.
    pub connected: AtomicU64,
    /// Messages that wait in the source, when that was last heard.
    pub lag: Arc<AtomicU64>,
}

/// What one webhook has done.
#[derive(Debug, Default)]
pub struct WebhookCounts {
    /// Events that were accepted by the other side.
    pub delivered: AtomicU64,
    /// Events that were dropped, for want of room or because their time was over.
    pub dropped: AtomicU64,
    /// Tries that failed.
    pub failures: AtomicU64,
    /// Events that wait.
    pub waiting: AtomicU64,
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

/// Counts so many more.
pub(crate) fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Relaxed);
}

/// One family of figures: its name, whether it only rises, what it is, and how it is read.
type Family<T> = (&'static str, bool, &'static str, fn(&T) -> &AtomicU64);

const OF_SOURCES: [Family<SourceCounts>; 8] = [
    ("consumed", true, "Messages taken from the source", |counts| &counts.consumed),
    ("published", true, "Messages that became publications", |counts| &counts.published),
    ("repeated", true, "Messages that had been published before", |counts| &counts.repeated),
    ("put_aside", true, "Messages that can never be published", |counts| &counts.put_aside),
    ("retries", true, "Publications that were tried again", |counts| &counts.retries),
    ("failures", true, "Times that the source failed or could not be reached", |counts| &counts.failures),
    ("connected", false, "Whether the source is connected", |counts| &counts.connected),
    ("lag", false, "Messages that wait in the source, when that was last heard", |counts| &*counts.lag),
];

const OF_WEBHOOKS: [Family<WebhookCounts>; 4] = [
    ("delivered", true, "Events that the other side accepted", |counts| &counts.delivered),
    ("dropped", true, "Events dropped for want of room, or because their time was over", |counts| &counts.dropped),
    ("failures", true, "Deliveries that failed, each try counted", |counts| &counts.failures),
    ("waiting", false, "Events that wait", |counts| &counts.waiting),
];

/// Everything that is counted, by the names in the settings.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Of sources.
    pub sources: Vec<(String, Arc<SourceCounts>)>,
    /// Of webhooks.
    pub webhooks: Vec<(String, Arc<WebhookCounts>)>,
}

impl Counts {
    /// Writes all figures in the OpenMetrics text format, without its end.
    pub fn write(&self, text: &mut String) {
        write_families(text, "sources", "source", &OF_SOURCES, &self.sources);
        write_families(text, "webhooks", "webhook", &OF_WEBHOOKS, &self.webhooks);
    }
}

fn write_families<T>(text: &mut String, room: &str, label: &str, families: &[Family<T>], all: &[(String, Arc<T>)]) {
    for (name, rises, help, read) in families.iter().filter(|_| !all.is_empty()) {
        let (kind, total) = if *rises { ("counter", "_total") } else { ("gauge", "") };
        let family = format!("talewire_{room}_{name}");
        let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a String takes every byte");
        line(format_args!("# HELP {family} {help}.\n# TYPE {family} {kind}"));
        for (of, counts) in all {
            // Names in settings are letters, digits and `-`: nothing needs to be escaped.
            line(format_args!("{family}{total}{{{label}=\"{of}\"}} {}", read(counts).load(Relaxed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_by_family_and_name() {
        let counts =
            Counts { sources: vec![("a".into(), Arc::default()), ("b".into(), Arc::default())], webhooks: vec![] };
        add(&counts.sources[1].1.consumed, 3);
        let mut text = String::new();
        counts.write(&mut text);
        let begin = "# HELP talewire_sources_consumed Messages taken from the source.\n# TYPE talewire_sources_consumed counter\n\
                     talewire_sources_consumed_total{source=\"a\"} 0\ntalewire_sources_consumed_total{source=\"b\"} 3\n";
        assert!(text.starts_with(begin), "{text}");
        assert!(text.contains("\ntalewire_sources_lag{source=\"a\"} 0\n"), "{text}");
        assert!(!text.contains("webhooks"), "{text}");
    }

    #[test]
    fn the_operators_document_lists_every_figure_and_no_other() {
        let document = include_str!("../../../docs/operations.md");
        let section = document.split("\n## Metrics of sources and webhooks\n").nth(1).expect("a section");
        let section = section.split("\n## ").next().expect("its end");
        let cells = section.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split(" | ").next());
        let mut told: Vec<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        let name = |room: &str, name: &str, rises: bool| {
            format!("talewire_{room}_{name}{}", if rises { "_total" } else { "" })
        };
        let of_sources = OF_SOURCES.iter().map(|(of, rises, ..)| name("sources", of, *rises));
        let of_webhooks = OF_WEBHOOKS.iter().map(|(of, rises, ..)| name("webhooks", of, *rises));
        let mut known: Vec<String> = of_sources.chain(of_webhooks).collect();
        told.sort_unstable();
        known.sort_unstable();
        assert_eq!(told, known);
    }
}
