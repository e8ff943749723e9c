DROP VIEW pending_bookings;
DROP VIEW market_capacity_by_cabin;
DROP VIEW booking_curve;
DROP VIEW market_data_history;
DROP VIEW market_activity;
DROP VIEW market_fares;
DROP VIEW market_data;
