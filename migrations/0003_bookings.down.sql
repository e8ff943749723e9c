DROP TABLE flight_demand;
DROP TABLE bookings;
