//! Arguments that several commands share: rows, ranges, filters, checks.
//!
//! Options have Pegasus's names and letters, except where one of ours is in the way (`-t` is the table, `-h` help).

use clap::{Args, ValueEnum};
use pegasus_client::{Check, KeyFilter, SortKeyRange};

use crate::cli::Text;
use crate::output::Failure;

/// One row.
#[derive(Debug, Args)]
pub struct RowArguments {
    /// Hash key; not empty
    #[arg(allow_negative_numbers = true)]
    pub hash_key: Text,
    /// Sort key; may be empty ("")
    #[arg(allow_negative_numbers = true)]
    pub sort_key: Text,
}

/// A range of sort keys of one hash key.
#[derive(Debug, Args)]
pub struct RangeArguments {
    /// Hash key; not empty
    #[arg(allow_negative_numbers = true)]
    pub hash_key: Text,
    /// First sort key; nothing or "" means from the beginning
    #[arg(allow_negative_numbers = true)]
    pub start: Option<Text>,
    /// Last sort key; nothing or "" means to the end
    #[arg(allow_negative_numbers = true)]
    pub stop: Option<Text>,
    /// Whether the first sort key itself belongs to the range
    #[arg(short = 'a', long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOLEAN")]
    #[arg(num_args = 0..=1, default_missing_value = "true")]
    pub start_inclusive: bool,
    /// Whether the last sort key itself belongs to the range
    #[arg(short = 'b', long, default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOLEAN")]
    #[arg(num_args = 0..=1, default_missing_value = "true")]
    pub stop_inclusive: bool,
}

impl RangeArguments {
    /// The range as the client has it.
    pub fn range(&self) -> SortKeyRange {
        let bytes = |text: &Option<Text>| text.as_ref().map_or_else(Vec::new, |text| text.0.clone());
        SortKeyRange {
            start: bytes(&self.start),
            start_inclusive: self.start_inclusive,
            stop: bytes(&self.stop),
            stop_inclusive: self.stop_inclusive,
        }
    }
}

/// Where a pattern has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum FilterType {
    /// Anywhere.
    Anywhere,
    /// At the beginning.
    Prefix,
    /// At the end.
    Postfix,
    /// The whole.
    Exact,
}

impl FilterType {
    /// The filter with this pattern, as the client has it.
    fn with(self, pattern: &Text) -> KeyFilter {
        let pattern = pattern.0.clone();
        match self {
            FilterType::Anywhere => KeyFilter::Anywhere(pattern),
            FilterType::Prefix => KeyFilter::Prefix(pattern),
            FilterType::Postfix => KeyFilter::Postfix(pattern),
            FilterType::Exact => KeyFilter::Exact(pattern),
        }
    }
}

/// Which sort keys.
#[derive(Debug, Default, Args)]
pub struct SortKeyFilterArguments {
    /// Only sort keys that have the pattern there
    #[arg(short = 's', long, requires = "sort_key_filter_pattern", value_name = "TYPE")]
    pub sort_key_filter_type: Option<FilterType>,
    /// The pattern for sort keys
    #[arg(short = 'y', long, requires = "sort_key_filter_type", value_name = "PATTERN")]
    pub sort_key_filter_pattern: Option<Text>,
}

impl SortKeyFilterArguments {
    /// The filter as the client has it.
    pub fn filter(&self) -> KeyFilter {
        key_filter(self.sort_key_filter_type, &self.sort_key_filter_pattern)
    }

    /// True if every sort key is wanted.
    pub fn is_none(&self) -> bool {
        self.sort_key_filter_type.is_none()
    }
}

/// Which rows of a table.
#[derive(Debug, Default, Args)]
pub struct RowFilterArguments {
    /// Only hash keys that have the pattern there
    #[arg(long, requires = "hash_key_filter_pattern", value_name = "TYPE")]
    pub hash_key_filter_type: Option<FilterType>,
    /// The pattern for hash keys
    #[arg(short = 'x', long, requires = "hash_key_filter_type", value_name = "PATTERN")]
    pub hash_key_filter_pattern: Option<Text>,
    /// Which sort keys.
    #[command(flatten)]
    pub sort_key: SortKeyFilterArguments,
    /// Which values.
    #[command(flatten)]
    pub value: ValueFilterArguments,
}

impl RowFilterArguments {
    /// The filter of hash keys as the client has it.
    pub fn hash_key_filter(&self) -> KeyFilter {
        key_filter(self.hash_key_filter_type, &self.hash_key_filter_pattern)
    }

    /// True if every row is wanted.
    pub fn is_none(&self) -> bool {
        self.hash_key_filter_type.is_none() && self.sort_key.is_none() && self.value.is_none()
    }
}

/// Which values. They are filtered here, not by the servers: every row that the other filters let pass is sent.
#[derive(Debug, Default, Args)]
pub struct ValueFilterArguments {
    /// Only values that have the pattern there; all rows are sent, and filtered by the shell
    #[arg(short = 'v', long, requires = "value_filter_pattern", value_name = "TYPE")]
    pub value_filter_type: Option<FilterType>,
    /// The pattern for values
    #[arg(short = 'z', long, requires = "value_filter_type", value_name = "PATTERN")]
    pub value_filter_pattern: Option<Text>,
}

impl ValueFilterArguments {
    /// The filter, which the shell applies.
    pub fn filter(&self) -> KeyFilter {
        key_filter(self.value_filter_type, &self.value_filter_pattern)
    }

    /// True if every value is wanted.
    pub fn is_none(&self) -> bool {
        self.value_filter_type.is_none()
    }
}

fn key_filter(kind: Option<FilterType>, pattern: &Option<Text>) -> KeyFilter {
    match (kind, pattern) {
        (Some(kind), Some(pattern)) => kind.with(pattern),
        // Neither is taken without the other.
        _ => KeyFilter::None,
    }
}

/// A condition on the value of one row.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Sort key of the row that is checked
    #[arg(short = 'c', long, value_name = "SORT_KEY")]
    pub check_sort_key: Text,
    /// What its value must be
    #[arg(long, value_name = "TYPE")]
    pub check_type: CheckType,
    /// What it is compared with
    #[arg(short = 'o', long, value_name = "OPERAND", allow_negative_numbers = true)]
    pub check_operand: Option<Text>,
    /// Print the value that was checked
    #[arg(short = 'r', long)]
    pub return_check_value: bool,
}

impl CheckArguments {
    /// The check and its operand.
    pub fn check(&self) -> Result<(Check, &[u8]), Failure> {
        let check = self.check_type.check();
        match &self.check_operand {
            Some(operand) => Ok((check, &operand.0)),
            None if self.check_type.compares() => {
                Err(Failure::usage("this check compares: say with what by --check_operand (-o)"))
            }
            None => Ok((check, b"")),
        }
    }
}

/// The checks by their names in Pegasus's shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum CheckType {
    /// Nothing is checked.
    NoCheck,
    /// There is no such row.
    NotExist,
    /// There is none, or its value is empty.
    NotExistOrEmpty,
    /// The row exists.
    Exist,
    /// It exists and its value is not empty.
    NotEmpty,
    /// The operand occurs in the value.
    MatchAnywhere,
    /// The value begins with the operand.
    MatchPrefix,
    /// The value ends with the operand.
    MatchPostfix,
    /// As bytes: value < operand.
    BytesLess,
    /// As bytes: value <= operand.
    BytesLessOrEqual,
    /// As bytes: value = operand.
    BytesEqual,
    /// As bytes: value >= operand.
    BytesGreaterOrEqual,
    /// As bytes: value > operand.
    BytesGreater,
    /// As numbers: value < operand.
    IntLess,
    /// As numbers: value <= operand.
    IntLessOrEqual,
    /// As numbers: value = operand.
    IntEqual,
    /// As numbers: value >= operand.
    IntGreaterOrEqual,
    /// As numbers: value > operand.
    IntGreater,
}

impl CheckType {
    /// The check as the client has it.
    pub fn check(self) -> Check {
        match self {
            CheckType::NoCheck => Check::Nothing,
            CheckType::NotExist => Check::NotExist,
            CheckType::NotExistOrEmpty => Check::NotExistOrEmpty,
            CheckType::Exist => Check::Exist,
            CheckType::NotEmpty => Check::NotEmpty,
            CheckType::MatchAnywhere => Check::MatchAnywhere,
            CheckType::MatchPrefix => Check::MatchPrefix,
            CheckType::MatchPostfix => Check::MatchPostfix,
            CheckType::BytesLess => Check::BytesLess,
            CheckType::BytesLessOrEqual => Check::BytesLessOrEqual,
            CheckType::BytesEqual => Check::BytesEqual,
            CheckType::BytesGreaterOrEqual => Check::BytesGreaterOrEqual,
            CheckType::BytesGreater => Check::BytesGreater,
            CheckType::IntLess => Check::IntegerLess,
            CheckType::IntLessOrEqual => Check::IntegerLessOrEqual,
            CheckType::IntEqual => Check::IntegerEqual,
            CheckType::IntGreaterOrEqual => Check::IntegerGreaterOrEqual,
            CheckType::IntGreater => Check::IntegerGreater,
        }
    }

    /// True if the check means nothing without an operand.
    fn compares(self) -> bool {
        self.check() as u8 >= Check::MatchAnywhere as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct RangeLine {
        #[command(flatten)]
        range: RangeArguments,
        #[command(flatten)]
        filter: SortKeyFilterArguments,
    }

    #[derive(Parser)]
    struct CheckLine {
        #[command(flatten)]
        check: CheckArguments,
    }

    fn range(words: &[&str]) -> Result<RangeLine, clap::Error> {
        RangeLine::try_parse_from(std::iter::once(&"word").chain(words))
    }

    #[test]
    fn a_range_is_written_as_in_pegasus() {
        let parsed = |words: &[&str]| range(words).map(|line| line.range.range()).expect("a range");
        assert_eq!(parsed(&["h"]), SortKeyRange::default());
        assert_eq!(parsed(&["h", "", ""]), SortKeyRange::default());
        let both = SortKeyRange { start: b"a".into(), start_inclusive: false, stop: b"b".into(), stop_inclusive: true };
        assert_eq!(parsed(&["h", "a", "b", "-a", "false", "-b", "true"]), both);
        assert_eq!(parsed(&["h", "a", "b", "--start-inclusive=false", "--stop-inclusive"]), both);
        assert!(range(&[]).is_err() && range(&["h", "a", "b", "c"]).is_err());
        assert!(range(&["h", "-a", "perhaps"]).is_err());
    }

    #[test]
    fn a_filter_needs_type_and_pattern() {
        let filter = |words: &[&str]| range(words).map(|line| line.filter.filter());
        assert_eq!(filter(&["h"]).expect("none"), KeyFilter::default());
        let postfix = KeyFilter::Postfix(b"\xff".into());
        assert_eq!(filter(&["h", "-s", "postfix", "-y", r"\xff"]).expect("one"), postfix);
        assert!(filter(&["h", "-s", "prefix"]).is_err());
        assert!(filter(&["h", "-y", "x"]).is_err());
        let error = filter(&["h", "-s", "glob", "-y", "x"]).unwrap_err().to_string();
        assert!(error.contains("anywhere, prefix, postfix, exact"), "{error}");
    }

    #[test]
    fn values_are_filtered_by_the_same_rules() {
        let filter = ValueFilterArguments {
            value_filter_type: Some(FilterType::Prefix),
            value_filter_pattern: Some(Text(b"a".into())),
        };
        assert!(filter.filter().matches(b"ab") && !filter.filter().matches(b"ba") && !filter.is_none());
        let none = ValueFilterArguments::default();
        assert!(none.filter().matches(b"x") && none.is_none());
    }

    #[test]
    fn every_check_has_a_name_and_its_number() {
        let checks: Vec<Check> = CheckType::value_variants().iter().map(|check| check.check()).collect();
        assert_eq!(checks, Check::ALL);
        let parsed = |words: &[&str]| {
            let line = CheckLine::try_parse_from(["word", "-c", "s", "--check-type"].iter().chain(words));
            line.unwrap_or_else(|error| panic!("{error}")).check
        };
        assert_eq!(parsed(&["not_exist_or_empty"]).check(), Ok((Check::NotExistOrEmpty, &b""[..])));
        assert_eq!(parsed(&["int_greater", "-o", "-7"]).check(), Ok((Check::IntegerGreater, &b"-7"[..])));
        let failure = parsed(&["bytes_equal"]).check().unwrap_err();
        assert!(failure.message.contains("--check_operand"), "{failure:?}");
    }
}
