//! Invented passengers: nobody's data.

const FAMILY: [&str; 40] = [
    "ABARA", "AHMED", "ALVES", "BAKER", "BERG", "CARTER", "CHEN", "COHEN", "COSTA", "DIAZ",
    "DUBOIS", "EVANS", "FOX", "GARCIA", "GREEN", "HADDAD", "HALL", "IVANOV", "JONES", "KAUR",
    "KIM", "NOWAK", "LEE", "LOPEZ", "MARTIN", "MILLER", "MORI", "NGUYEN", "OKAFOR", "OLSEN",
    "PATEL", "REED", "ROSSI", "SATO", "SILVA", "SMITH", "TANAKA", "WALKER", "WONG", "YOUNG",
];

const GIVEN: [&str; 32] = [
    "ADA", "ALEX", "AMIR", "ANA", "BEN", "CARL", "CLARA", "DANA", "DAVID", "ELENA", "EMMA", "ERIC",
    "FARAH", "GRACE", "HANA", "HUGO", "INES", "JAMES", "JUN", "KARIM", "LARS", "LENA", "LIAM",
    "MAYA", "MEI", "NOAH", "OLGA", "OMAR", "PRIYA", "ROSA", "SAM", "YUKI",
];

/// Where connecting passengers are bound.
const CONNECTIONS: [&str; 8] = ["ANC", "BOI", "GEG", "HNL", "LIH", "OGG", "SBA", "YVR"];

/// Family and given name; a party is one family.
pub(super) fn name(traits: u32, passenger: u8) -> (&'static str, &'static str) {
    let family = FAMILY[(traits >> 10) as usize % FAMILY.len()];
    let given = (traits >> 20) as usize + 7 * usize::from(passenger);
    (family, GIVEN[given % GIVEN.len()])
}

pub(super) fn connection(traits: u32) -> &'static str {
    CONNECTIONS[(traits >> 22) as usize % CONNECTIONS.len()]
}

/// Domains reserved for documentation: no mail can reach anybody.
pub(super) fn mail_domain(traits: u32) -> &'static str {
    if traits & 8 == 0 {
        "@example.com"
    } else {
        "@example.net"
    }
}
