//! The query of a list: filters, `fields`, sorting and paging, read by the attribute table; and the choice of one page.

use std::{cmp::Ordering, collections::HashSet};

use http::StatusCode;
use uuid::Uuid;

use crate::{
    attributes::{Attribute, Kind, find},
    error::ApiError,
    field::{FixedIpFilter, Wanted},
    parse,
};

/// Limit of parameters in one query.
pub const MAX_PARAMETERS: usize = 2_000;

/// Filters by tags: all of them, any, not all, none.
pub const TAG_FILTERS: [&str; 4] = ["tags", "tags-any", "not-tags", "not-tags-any"];

/// The filter of rows that changed at a time or later.
pub const CHANGED_SINCE: &str = "changed_since";

/// One filter: the attribute has one of these values.
pub struct Filter<V: 'static> {
    /// The attribute.
    pub attribute: &'static Attribute<V>,
    /// Any of these.
    pub wanted: Vec<Wanted>,
}

/// All that a list's query says.
pub struct ListQuery<V: 'static> {
    /// All of these must match.
    pub filters: Vec<Filter<V>>,
    /// What to show.
    pub fields: Fields<V>,
    /// Sort keys, most important first; true is ascending.
    pub sorts: Vec<(&'static Attribute<V>, bool)>,
    /// Rows of one page; `None` when the client did not say.
    pub limit: Option<usize>,
    /// The row after (or, in reverse, before) which the page begins.
    pub marker: Option<String>,
    /// Pages go backwards.
    pub page_reverse: bool,
}

/// The attributes that a view shows, in the table's order.
pub struct Fields<V: 'static>(Option<Vec<&'static Attribute<V>>>, &'static [Attribute<V>]);

impl<V> Fields<V> {
    /// Everything visible.
    pub const fn all(table: &'static [Attribute<V>]) -> Self {
        Self(None, table)
    }

    /// What `fields=` names; names that do not exist are passed over, as Neutron does.
    pub fn from_query(table: &'static [Attribute<V>], query: &[(String, String)]) -> Self {
        let names: HashSet<&str> = query
            .iter()
            .filter(|(key, value)| key == "fields" && !value.is_empty())
            .map(|(_, value)| value.as_str())
            .collect();
        if names.is_empty() {
            return Self::all(table);
        }
        Self(
            Some(
                table
                    .iter()
                    .filter(|a| a.visible && names.contains(a.name))
                    .collect(),
            ),
            table,
        )
    }

    /// The attributes to show.
    pub fn iter(&self) -> impl Iterator<Item = &'static Attribute<V>> + '_ {
        let chosen = self.0.as_deref();
        let all = if chosen.is_some() { &[] } else { self.1 };
        chosen
            .unwrap_or_default()
            .iter()
            .copied()
            .chain(all.iter().filter(|a| a.visible))
    }
}

impl<V> ListQuery<V> {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 for a filter or sort key that the resource does not have, and for values that cannot be read.
    pub fn parse(table: &'static [Attribute<V>], query: &[(String, String)]) -> Result<Self, ApiError> {
        if query.len() > MAX_PARAMETERS {
            return Err(ApiError::bad_request(format!(
                "The query has more than {MAX_PARAMETERS} parameters."
            )));
        }
        let mut parsed = Self {
            filters: Vec::new(),
            fields: Fields::from_query(table, query),
            sorts: sorts(table, query)?,
            limit: None,
            marker: None,
            page_reverse: false,
        };
        let tagged = table.iter().any(|attribute| attribute.kind == Kind::Tags);
        let mut tags = Vec::new();
        let mut unknown = Vec::new();
        for (key, value) in query {
            match key.as_str() {
                "fields" | "sort_key" | "sort_dir" => {}
                "limit" => parsed.limit = limit(value)?,
                "marker" => parsed.marker = Some(value.clone()),
                "page_reverse" => parsed.page_reverse = parse::boolean_text(value).unwrap_or(false),
                CHANGED_SINCE => match find(table, "updated_at") {
                    Some(attribute) => parsed.filters.push(Filter {
                        attribute,
                        wanted: vec![changed_since(value)?],
                    }),
                    None => unknown.push(key.as_str()),
                },
                key if tagged && TAG_FILTERS.contains(&key) => tags.push((key, value.as_str())),
                _ => match find(table, key).filter(|attribute| attribute.filter) {
                    Some(attribute) => parsed.add_filter(attribute, value)?,
                    None => unknown.push(key.as_str()),
                },
            }
        }
        refuse_unknown(unknown)?;
        parsed.add_tag_filters(table, &tags);
        Ok(parsed)
    }

    fn add_filter(&mut self, attribute: &'static Attribute<V>, value: &str) -> Result<(), ApiError> {
        let index = match self
            .filters
            .iter()
            .position(|filter| filter.attribute.name == attribute.name)
        {
            Some(index) => index,
            None => {
                self.filters.push(Filter {
                    attribute,
                    wanted: Vec::new(),
                });
                self.filters.len() - 1
            }
        };
        let wanted = &mut self.filters[index].wanted;
        if attribute.kind == Kind::FixedIps {
            // All values together are one condition on one address.
            if wanted.is_empty() {
                wanted.push(Wanted::FixedIp(FixedIpFilter::default()));
            }
            if let Some(Wanted::FixedIp(filter)) = wanted.first_mut() {
                add_fixed_ip(filter, value)?;
            }
        } else {
            wanted.push(wanted_value(attribute, value)?);
        }
        Ok(())
    }

    fn add_tag_filters(&mut self, table: &'static [Attribute<V>], given: &[(&str, &str)]) {
        let Some(attribute) = table.iter().find(|attribute| attribute.kind == Kind::Tags) else {
            return;
        };
        for key in TAG_FILTERS {
            let tags: Vec<String> = given
                .iter()
                .filter(|(name, _)| *name == key)
                .flat_map(|(_, value)| value.split(','))
                .filter(|tag| !tag.is_empty())
                .map(str::to_owned)
                .collect();
            if tags.is_empty() {
                continue;
            }
            let wanted = match key {
                "tags" => Wanted::AllTags(tags),
                "tags-any" => Wanted::AnyTag(tags),
                "not-tags" => Wanted::NotAllTags(tags),
                _ => Wanted::NoTag(tags),
            };
            self.filters.push(Filter {
                attribute,
                wanted: vec![wanted],
            });
        }
    }

    /// Whether a row passes all filters.
    pub fn matches(&self, view: &V) -> bool {
        self.filters.iter().all(|filter| {
            let field = (filter.attribute.get)(view);
            filter.wanted.iter().any(|wanted| field.is(wanted))
        })
    }

    /// The UUIDs that an attribute may have, when the query limits it: what an index can be asked for.
    pub fn uuids(&self, name: &str) -> Option<Vec<Uuid>> {
        let filter = self.filters.iter().find(|filter| filter.attribute.name == name)?;
        let mut uuids: Vec<Uuid> = filter
            .wanted
            .iter()
            .filter_map(|wanted| {
                if let Wanted::Uuid(uuid) = wanted {
                    Some(*uuid)
                } else {
                    None
                }
            })
            .collect();
        uuids.sort_unstable();
        uuids.dedup();
        Some(uuids)
    }

    /// The texts that an attribute may have, when the query limits it.
    pub fn texts(&self, name: &str) -> Option<Vec<&str>> {
        let filter = self.filters.iter().find(|filter| filter.attribute.name == name)?;
        let mut texts: Vec<&str> = filter
            .wanted
            .iter()
            .filter_map(|wanted| {
                if let Wanted::Text(text) = wanted {
                    Some(text.as_str())
                } else {
                    None
                }
            })
            .collect();
        texts.sort_unstable();
        texts.dedup();
        Some(texts)
    }

    /// The condition on a port's addresses, when there is one.
    pub fn fixed_ip(&self) -> Option<&FixedIpFilter> {
        self.filters
            .iter()
            .find_map(|filter| match filter.wanted.first() {
                Some(Wanted::FixedIp(filter)) => Some(filter),
                _ => None,
            })
    }

    /// Whether rows are chosen by an attribute of which this is true.
    pub fn filters_by(&self, hidden: impl Fn(&str) -> bool) -> bool {
        self.filters.iter().any(|filter| hidden(filter.attribute.name))
    }

    /// The order of two rows by the sort keys alone.
    pub fn order(&self, a: &V, b: &V) -> Ordering {
        self.sorts
            .iter()
            .map(|(attribute, ascending)| {
                let order = (attribute.get)(a).order(&(attribute.get)(b));
                if *ascending { order } else { order.reverse() }
            })
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

/// The query of one row: `fields`, and filters that change nothing.
///
/// # Errors
/// 400 for what the resource does not have.
pub fn check_show<V>(table: &'static [Attribute<V>], query: &[(String, String)]) -> Result<(), ApiError> {
    let known = |name: &str| {
        name == "fields"
            || TAG_FILTERS.contains(&name)
            || find(table, name).is_some_and(|attribute| attribute.filter)
    };
    refuse_unknown(
        query
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| !known(name))
            .collect(),
    )
}

/// Most names of unknown parameters that a refusal repeats.
const MAX_UNKNOWN_SHOWN: usize = 10;

fn refuse_unknown(mut unknown: Vec<&str>) -> Result<(), ApiError> {
    if unknown.is_empty() {
        return Ok(());
    }
    unknown.dedup();
    let names: Vec<String> = unknown
        .iter()
        .take(MAX_UNKNOWN_SHOWN)
        .map(|name| format!("'{}'", parse::cut(name)))
        .collect();
    Err(ApiError::bad_request(format!(
        "[{}] is invalid attribute for filtering",
        names.join(", ")
    )))
}

/// `changed_since=<time>`: ISO 8601, in UTC where no zone is given.
fn changed_since(value: &str) -> Result<Wanted, ApiError> {
    let utc = || {
        value
            .parse::<jiff::civil::DateTime>()
            .ok()?
            .to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp())
    };
    value
        .parse::<jiff::Timestamp>()
        .ok()
        .or_else(utc)
        .map(Wanted::Since)
        .ok_or_else(|| {
            ApiError::invalid_input(&format!(
                "The input {CHANGED_SINCE} must be in the following format: YYYY-MM-DDTHH:MM:SS, not '{}'",
                parse::cut(value)
            ))
        })
}

fn limit(value: &str) -> Result<Option<usize>, ApiError> {
    match value.trim().parse::<usize>() {
        Ok(0) => Ok(None),
        Ok(limit) => Ok(Some(limit)),
        // A number too large for us is no limit of its own; everything else is not a number.
        Err(error) if *error.kind() == std::num::IntErrorKind::PosOverflow => Ok(Some(usize::MAX)),
        Err(_) => Err(ApiError::bad_parameter(
            "limit",
            &format!(
                "Limit must be an integer 0 or greater and not '{}'",
                parse::cut(value)
            ),
        )),
    }
}

fn sorts<V>(
    table: &'static [Attribute<V>],
    query: &[(String, String)],
) -> Result<Vec<(&'static Attribute<V>, bool)>, ApiError> {
    let all = |name: &str| -> Vec<&str> {
        query
            .iter()
            .filter(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
            .collect()
    };
    let (keys, directions) = (all("sort_key"), all("sort_dir"));
    if keys.len() != directions.len() {
        return Err(ApiError::bad_request(
            "The number of sort_keys and sort_dirs must be same",
        ));
    }
    let mut sorts = Vec::with_capacity(keys.len());
    for (key, direction) in keys.into_iter().zip(directions) {
        let Some(attribute) = find(table, key).filter(|attribute| attribute.sort) else {
            return Err(no_sort_key(key));
        };
        let ascending = match direction {
            "asc" => true,
            "desc" => false,
            other => {
                return Err(ApiError::bad_request(format!(
                    "['{}'] is invalid value for sort_dirs, valid value is 'asc' and 'desc'",
                    parse::cut(other)
                )));
            }
        };
        sorts.push((attribute, ascending));
    }
    Ok(sorts)
}

/// Reads a filter's text by the attribute's type. What no row can have matches nothing, as in Neutron.
fn wanted_value<V>(attribute: &Attribute<V>, value: &str) -> Result<Wanted, ApiError> {
    Ok(match attribute.kind {
        Kind::Bool | Kind::OnlyFalse => Wanted::Bool(parse::boolean_text(value).ok_or_else(|| {
            ApiError::invalid_input(&format!("'{}' cannot be converted to boolean", parse::cut(value)))
        })?),
        Kind::Int(..) | Kind::IntOrNull(..) | Kind::OneOfInt(_) => match value.trim().parse::<i64>() {
            Ok(number) => u64::try_from(number).map_or(Wanted::Nothing, Wanted::Int),
            Err(_) => {
                return Err(ApiError::invalid_input(&format!(
                    "'{}' is not an integer",
                    parse::cut(value)
                )));
            }
        },
        Kind::Uuid | Kind::UuidOrNull => Uuid::parse_str(value).map_or(Wanted::Nothing, Wanted::Uuid),
        Kind::IpOrNull => value.parse().map_or(Wanted::Nothing, Wanted::Ip),
        Kind::Cidr => Wanted::Cidr(value.parse().map_err(|_| {
            ApiError::invalid_input(&format!("{} is not in a CIDR format", parse::cut(value)))
        })?),
        Kind::Mac => value.parse().map_or(Wanted::Nothing, Wanted::Mac),
        _ => Wanted::Text(value.to_owned()),
    })
}

fn add_fixed_ip(filter: &mut FixedIpFilter, value: &str) -> Result<(), ApiError> {
    match value.split_once('=') {
        Some(("ip_address", address)) => filter
            .addresses
            .get_or_insert_default()
            .extend(address.parse::<std::net::IpAddr>()),
        Some(("subnet_id", subnet)) => filter
            .subnets
            .get_or_insert_default()
            .extend(Uuid::parse_str(subnet)),
        Some(("ip_address_substr", part)) => filter.parts.get_or_insert_default().push(part.to_lowercase()),
        Some((key, _)) => {
            return Err(ApiError::invalid_input(&format!(
                "'{}' is not a key of fixed_ips; use ip_address, ip_address_substr or subnet_id",
                parse::cut(key)
            )));
        }
        None => {
            return Err(ApiError::invalid_input(&format!(
                "'{}' is not of the form <key>=[value]",
                parse::cut(value)
            )));
        }
    }
    Ok(())
}

/// One page of rows and whether a page may follow in the direction of travel.
pub struct Page<V> {
    /// The rows, always in the list's order.
    pub rows: Vec<V>,
    /// The page is full, so there may be another one (Neutron's rule; the next one may be empty).
    pub full: bool,
}

/// Chooses a page from candidates that come in the order of their ids.
///
/// `id` is the last sort key, so that the order is total. Without sort keys, candidates after the page are not looked at.
///
/// # Errors
/// 404 when the marker is no row that the caller sees.
pub fn page<V>(
    query: &ListQuery<V>,
    max_rows: usize,
    id: impl Fn(&V) -> Uuid,
    marker: Option<V>,
    candidates: impl Iterator<Item = V>,
) -> Page<V> {
    let limit = query.limit.map_or(max_rows, |limit| limit.min(max_rows));
    let total_order = |a: &V, b: &V| query.order(a, b).then_with(|| id(a).cmp(&id(b)));
    let in_direction = |order: Ordering| {
        if query.page_reverse {
            order.reverse()
        } else {
            order
        }
    };
    let beyond = |view: &V| {
        marker
            .as_ref()
            .is_none_or(|m| in_direction(total_order(view, m)).is_gt())
    };
    let matching = candidates.filter(|view| beyond(view) && query.matches(view));
    let mut rows: Vec<V> = if query.sorts.is_empty() {
        matching.take(limit).collect()
    } else {
        let mut all: Vec<V> = matching.collect();
        all.sort_unstable_by(|a, b| in_direction(total_order(a, b)));
        all.truncate(limit);
        all
    };
    if query.page_reverse {
        rows.reverse();
    }
    Page {
        full: rows.len() >= limit,
        rows,
    }
}

/// The pages before and after, as `(rel, href)`; none when the query has no limit and the page has everything.
pub fn page_links(
    path: &str,
    query: &[(String, String)],
    limited: bool,
    reverse: bool,
    full: bool,
    ends: Option<(Uuid, Uuid)>,
) -> Vec<(&'static str, String)> {
    let mut links = Vec::new();
    if !limited && !full {
        return links;
    }
    let href = |marker: Option<Uuid>, reverse: bool| {
        let mut pairs: Vec<(&str, String)> = query
            .iter()
            .filter(|(key, _)| key != "marker" && key != "page_reverse")
            .map(|(key, value)| (key.as_str(), value.clone()))
            .collect();
        pairs.extend(marker.map(|id| ("marker", id.to_string())));
        if reverse {
            pairs.push(("page_reverse", "True".to_owned()));
        }
        let text: Vec<String> = pairs
            .iter()
            .map(|(key, value)| format!("{}={}", encode(key), encode(value)))
            .collect();
        format!("{path}?{}", text.join("&"))
    };
    if full || reverse {
        links.push(("next", href(ends.map(|(_, last)| last), false)));
    }
    if full || !reverse {
        links.push(("previous", href(ends.map(|(first, _)| first), true)));
    }
    links
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The value of an `If-Match` header: `revision_number=N`.
///
/// # Errors
/// 400 when it says `revision_number` and no number follows, or twice.
pub fn if_match(header: Option<&http::HeaderValue>) -> Result<Option<u64>, ApiError> {
    let Some(text) = header.and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    let mut found = None;
    for tag in text.split(',') {
        let Some(number) = tag.trim().trim_matches('"').strip_prefix("revision_number=") else {
            continue;
        };
        if found.is_some() {
            return Err(ApiError::bad_parameter(
                "if-match",
                "Multiple revision_number etags are not supported",
            ));
        }
        found = Some(number.parse().map_err(|_| {
            ApiError::bad_parameter(
                "if-match",
                "Revision number etag must be in the format of revision_number=<int>",
            )
        })?);
    }
    Ok(found)
}

/// Nothing to sort by.
pub fn no_sort_key(key: &str) -> ApiError {
    ApiError::bad_request(format!(
        "['{}'] is invalid attribute for sort_keys",
        parse::cut(key)
    ))
}

/// A resource that is not there, by an id that the client gave (which need not be a UUID).
pub fn not_found(singular: &str, id: &str) -> ApiError {
    let capital = |word: &str| {
        let mut word = word.to_owned();
        if let Some(first) = word.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        word
    };
    let (exception, words) = match singular {
        "floatingip" => ("FloatingIP".to_owned(), "Floating IP".to_owned()),
        _ => (
            singular.split('_').map(capital).collect(),
            capital(&singular.replace('_', " ")),
        ),
    };
    let message = format!("{words} {} could not be found.", parse::cut(id));
    ApiError::new(StatusCode::NOT_FOUND, format!("{exception}NotFound"), message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Field;

    struct Row {
        id: Uuid,
        name: &'static str,
    }

    const TABLE: &[Attribute<Row>] = &[
        Attribute::new("id", Kind::Uuid, |row: &Row| Field::Uuid(row.id)).listed(),
        Attribute::new("name", Kind::Text(255), |row: &Row| Field::Text(row.name)).listed(),
    ];

    fn parse(query: &[(&str, &str)]) -> Result<ListQuery<Row>, ApiError> {
        let query: Vec<(String, String)> = query
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        ListQuery::parse(TABLE, &query)
    }

    fn rows() -> Vec<Row> {
        ["c", "a", "b", "a"]
            .into_iter()
            .zip(1..)
            .map(|(name, n)| Row {
                id: Uuid::from_u128(n),
                name,
            })
            .collect()
    }

    fn ids(query: &[(&str, &str)], marker: Option<u128>) -> Vec<u128> {
        let query = parse(query).unwrap();
        let marker = marker.and_then(|n| rows().into_iter().find(|row| row.id == Uuid::from_u128(n)));
        let mut candidates = rows();
        if query.page_reverse {
            candidates.reverse();
        }
        page(&query, 100, |row| row.id, marker, candidates.into_iter())
            .rows
            .iter()
            .map(|r| r.id.as_u128())
            .collect()
    }

    #[test]
    fn pages_walk_forwards_and_back() {
        let sort = [("sort_key", "name"), ("sort_dir", "asc")];
        assert_eq!(ids(&sort, None), [2, 4, 3, 1]);
        assert_eq!(ids(&[sort[0], sort[1], ("limit", "2")], Some(4)), [3, 1]);
        assert_eq!(
            ids(
                &[sort[0], sort[1], ("limit", "2"), ("page_reverse", "True")],
                Some(1)
            ),
            [4, 3]
        );
        assert_eq!(
            ids(&[("sort_key", "name"), ("sort_dir", "desc")], None),
            [1, 3, 2, 4]
        );
        assert_eq!(ids(&[("limit", "2")], Some(2)), [3, 4]);
        assert_eq!(ids(&[("limit", "2"), ("page_reverse", "true")], Some(4)), [2, 3]);
        assert_eq!(ids(&[("name", "a"), ("name", "b")], None), [2, 3, 4]);
    }

    #[test]
    fn bad_queries_are_refused_with_neutrons_words() {
        let message = |query: &[(&str, &str)]| parse(query).err().unwrap().to_string();
        assert!(message(&[("limit", "-1")]).contains("Limit must be an integer 0 or greater and not '-1'"));
        assert!(message(&[("limit", "x")]).contains("Bad limit request"));
        assert!(
            message(&[("sort_key", "name")]).contains("The number of sort_keys and sort_dirs must be same")
        );
        assert!(
            message(&[("sort_key", "zip"), ("sort_dir", "asc")]).contains("invalid attribute for sort_keys")
        );
        assert!(message(&[("sort_key", "name"), ("sort_dir", "up")]).contains("invalid value for sort_dirs"));
        assert!(message(&[("zip", "1")]).contains("['zip'] is invalid attribute for filtering"));
    }

    #[test]
    fn links_carry_the_query_and_the_marker() {
        let query = [
            ("limit".to_owned(), "1".to_owned()),
            ("name".to_owned(), "a&b".to_owned()),
        ];
        let ends = Some((Uuid::from_u128(1), Uuid::from_u128(2)));
        let links = page_links("http://h/v2.0/ports", &query, true, false, true, ends);
        assert_eq!(links.len(), 2);
        assert_eq!(
            links[0].1,
            "http://h/v2.0/ports?limit=1&name=a%26b&marker=00000000-0000-0000-0000-000000000002"
        );
        assert!(
            links[1]
                .1
                .ends_with("marker=00000000-0000-0000-0000-000000000001&page_reverse=True")
        );
        assert!(page_links("p", &[], false, false, false, ends).is_empty());
    }

    #[test]
    fn if_match_reads_a_revision() {
        let header = |text: &'static str| if_match(Some(&http::HeaderValue::from_static(text)));
        assert_eq!(header("revision_number=7"), Ok(Some(7)));
        assert_eq!(header("\"abc\""), Ok(None));
        assert!(header("revision_number=x").is_err());
        assert!(header("revision_number=1, revision_number=2").is_err());
    }
}
