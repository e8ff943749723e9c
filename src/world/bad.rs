//! Messages that break the contract: what the worker must set aside.

use super::dice::Dice;

/// One way to break a booking: what to look for in a good event, and what to put there.
struct Fault {
    find: &'static str,
    replace: &'static str,
}

const fn fault(find: &'static str, replace: &'static str) -> Fault {
    Fault { find, replace }
}

/// Each `find` occurs in every event of a new booking that [`break_booking`] is given.
const FAULTS: [Fault; 28] = [
    fault(r#""total":""#, r#""total":"9"#),
    fault(r#""base":""#, r#""base":"-"#),
    fault(r#""taxes":""#, r#""taxes":"0"#),
    fault(r#""price":{"#, r#""price":{"total":"12.50","#),
    fault(r#""base":""#, r#""base":0,"was":""#),
    fault(r#""currency":""#, r#""currency":"Q"#),
    fault(r#""currency":""#, r#""currency":"","was":""#),
    fault(r#""cabin":""#, r#""cabin":"Z"#),
    fault(r#""status":"confirmed""#, r#""status":"waitlisted""#),
    fault(r#""status":"confirmed""#, r#""status":"cancelled""#),
    fault(r#""status":"confirmed""#, r#""status":null"#),
    fault(r#""payment_status":""#, r#""payment_status":"un"#),
    fault(r#""booking_class":""#, r#""booking_class":"y"#),
    fault(r#""reference":""#, r#""reference":"q"#),
    fault(r#""reference":"#, r#""renamed_reference":"#),
    fault(r#""flight_id":""#, r#""flight_id":" "#),
    fault(r#""flight_id":"#, r#""flight":"#),
    fault(r#""version":1"#, r#""version":0"#),
    fault(r#""version":1"#, r#""version":1.5"#),
    fault(r#""version":1"#, r#""version":"1""#),
    fault(r#""booked_at":"2"#, r#""booked_at":"1"#),
    fault(r#""booked_at":""#, r#""booked_at":"31/12/"#),
    fault(r#""point_of_sale":""#, r#""point_of_sale":"x"#),
    fault(r#"upserted.v1"#, r#"upserted.v2"#),
    fault(r#"booking.upserted"#, r#"booking.merged"#),
    fault(r#""specversion":"1.0""#, r#""specversion":"0.3""#),
    fault(
        r#","booked_at":""#,
        r#","journey":{"origin":"lhr","destination":"JFK"},"booked_at":""#,
    ),
    fault(r#","data":{"#, r#","data":{"version":1,"#),
];

/// How many ways there are: the faults, and three in which the body is no JSON.
pub(super) const WAYS: usize = FAULTS.len() + 3;

/// Turns the event of a new booking into one that breaks a rule.
pub(super) fn break_booking(event: &mut Vec<u8>, dice: &mut Dice) {
    break_in(event, dice.below(WAYS as u32) as usize);
}

/// Breaks it in the given one of the [`WAYS`].
pub(super) fn break_in(event: &mut Vec<u8>, way: usize) {
    const CUT: usize = FAULTS.len();
    const TWO_VALUES: usize = FAULTS.len() + 1;
    match way {
        // As by a producer that died.
        CUT => event.truncate(event.len() / 2),
        TWO_VALUES => event.extend_from_slice(b" {}"),
        _ => match FAULTS.get(way) {
            Some(fault) => replace(event, fault),
            None => event.insert(0, b','),
        },
    }
}

fn replace(event: &mut Vec<u8>, fault: &Fault) {
    let find = fault.find.as_bytes();
    if let Some(at) = event.windows(find.len()).position(|window| window == find) {
        event.splice(at..at + find.len(), fault.replace.bytes());
    }
}
