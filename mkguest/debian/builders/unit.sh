# Makes a unit (unit.py), then applies its fix.
export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
/usr/bin/python3 "$script"
eval "$fix"
